"""What an installed vaeflow must do, without any extra: run from a wheel, not from a checkout.

ENVIRONMENT/bin/python -I tests/packaging/smoke.py
"""

from __future__ import annotations

import importlib.metadata
import pathlib
import platform
import sys
import tempfile

import jax
import numpy as np

import vaeflow as vf


def check_installed() -> None:
    """The package is that of the environment, with its marker of types."""
    folder = pathlib.Path(vf.__file__).parent
    if pathlib.Path(sys.prefix) not in folder.parents:
        raise SystemExit(f"vaeflow is imported from {folder}, not from {sys.prefix}")
    assert (folder / "py.typed").exists()
    for name in vf.__all__:
        if name != "plotting":  # which needs matplotlib
            getattr(vf, name)


def check_flow() -> None:
    """A flow is initialised, trained for some steps, evaluated, sampled, saved and loaded."""
    import optax

    key = jax.random.key(0)
    points = vf.distributions.toy.two_moons(key, (256,))
    model = vf.models.FlowModel(vf.flows.NeuralSplineFlow((2,), num_steps=2, hidden_sizes=(16,)))
    variables = jax.jit(model.init)(key, points)
    optimizer = optax.adam(1e-2)
    state = vf.training.create_train_state(variables, optimizer)
    step = jax.jit(vf.training.make_update(model, vf.losses.negative_log_likelihood, optimizer))
    losses = []
    for number in range(20):
        state, metrics = step(state, {"image": points}, jax.random.fold_in(key, number))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0], losses
    variables = vf.training.variables_of(state)

    @jax.jit
    def outputs(variables):
        density = model.apply(variables)
        return density.log_prob(points), density.sample(seed=key, sample_shape=100)

    log_prob, samples = outputs(variables)
    assert log_prob.shape == (256,)
    assert samples.shape == (100, 2)
    assert np.isfinite(log_prob).all()
    assert np.isfinite(samples).all()

    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "flow.safetensors"
        vf.save(file, {"num_steps": 2}, variables)
        options, loaded = vf.load(file)
    assert options == {"num_steps": 2}
    for before, after in zip((log_prob, samples), outputs(loaded), strict=True):
        np.testing.assert_array_equal(before, after)


def check_fit() -> None:
    """Arrays are fitted in one call, and the model comes back from its file."""
    points = np.random.default_rng(0).normal(size=(300, 2)).cumsum(axis=1)
    fitted = vf.fit(vf.flows.NeuralSplineFlow((2,), num_steps=2), points, steps=60)
    with tempfile.TemporaryDirectory() as folder:
        fitted.save(pathlib.Path(folder) / "flow.safetensors")
        again = vf.load_fitted(pathlib.Path(folder) / "flow.safetensors")
    np.testing.assert_array_equal(again.log_prob(points), fitted.log_prob(points))
    assert again.sample(5).shape == (5, 2)


def check_vae() -> None:
    """A VAE of images has an evidence lower bound with finite gradients."""
    images = np.arange(4 * 6 * 6 * 1, dtype=np.uint8).reshape(4, 6, 6, 1)
    vae = vf.models.VAE(
        encoder=vf.encoders.Encoder(
            vf.encoders.DenseEncoder((16,)), vf.encoders.DiagonalGaussianPosterior(2)
        ),
        decoder=vf.decoders.Decoder(
            vf.decoders.DenseDecoder((16,)), vf.decoders.BernoulliLikelihood(), (6, 6, 1)
        ),
        observation=vf.models.Binarizer(),
    )
    key = jax.random.key(1)
    variables = jax.jit(vae.init)(key, images)

    @jax.jit
    def gradients(variables):
        return jax.grad(lambda own: vf.losses.elbo(vae, own, {"image": images}, key)[0])(variables)

    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients(variables)))


if __name__ == "__main__":
    check_installed()
    check_flow()
    check_fit()
    check_vae()
    versions = {name: importlib.metadata.version(name) for name in ("vaeflow", "jax", "flax")}
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    print(f"fine: Python {platform.python_version()}, {shown}")
