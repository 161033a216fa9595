"""`vaeflow.fit` of models of images, and `vaeflow.fit_energy`."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaeflow as vf

IMAGES = np.uint8(255) * np.random.default_rng(0).integers(0, 2, (60, 1, 1, 1), np.uint8)
IMAGES = np.broadcast_to(IMAGES, (60, 4, 4, 1)).copy()
LABELS = (IMAGES[:, 0, 0, 0] > 0).astype(int)


def vae(**options):
    return vf.models.VAE(
        vf.encoders.Encoder(
            vf.encoders.DenseEncoder((16,)), vf.encoders.DiagonalGaussianPosterior(2)
        ),
        vf.decoders.Decoder(
            vf.decoders.DenseDecoder((16,)), vf.decoders.BernoulliLikelihood(), (4, 4, 1)
        ),
        vf.models.Binarizer(),
        **options,
    )


@pytest.mark.slow
def test_a_vae_is_fitted_by_its_bound():
    """Images are all black or all white: log 2 nats are the least."""
    options = {"steps": 200, "learning_rate": 2e-2, "validation": 0.2, "patience": 0}
    fitted = vf.fit(vae(), IMAGES, **options)
    assert fitted.summary["loss"] == "elbo"
    assert fitted.summary["metric"] == "negative_elbo"
    log_prob = fitted.log_prob(IMAGES[:20])
    bound = fitted.summary["metrics"]["validation_negative_elbo"]
    assert math.log(2) - 0.1 < -log_prob.mean() < bound + 0.1
    samples = fitted.sample(8)
    assert samples.shape == (8, 4, 4, 1)
    assert samples.dtype == np.uint8
    with pytest.raises(ValueError, match="a VAE has no density in closed form"):
        fitted.distribution()
    with pytest.raises(ValueError, match="data must be uint8 images, got float32"):
        fitted.log_prob(IMAGES / 255.0)


def test_images_are_reconstructed_at_the_mean_of_the_posterior():
    """By batches of one size, as by the model itself; all others say why not."""
    model = vf.models.dense_vae((4, 4, 1), 2, hidden_sizes=(4,))
    fitted = vf.fit(model, IMAGES, steps=1, validation=0)
    found = fitted.reconstruct(IMAGES[:30], seed=3)
    assert found.dtype == np.uint8
    # Black and white are binarised the same by every key.
    values = model.apply(fitted.variables, IMAGES[:30] / 255.0, method="posterior").mean()
    expected = model.apply(fitted.variables, values, method="decode")
    assert np.abs(found.astype(int) - np.asarray(expected, int)).max() <= 1
    assert found.std() > 0
    assert fitted.reconstruct(IMAGES[:0]).shape == (0, 4, 4, 1)
    with pytest.raises(ValueError, match="images must be uint8 images, got float32"):
        fitted.reconstruct(IMAGES / 255.0)
    both = dataclasses.replace(fitted, summary={**fitted.summary, "members": 2})
    with pytest.raises(ValueError, match=r"an ensemble: call member\(index\).reconstruct"):
        both.reconstruct(IMAGES)
    flow = vf.models.FlowModel(vf.flows.NICE((2,)))
    with pytest.raises(ValueError, match="a FlowModel has no latents to reconstruct"):
        dataclasses.replace(fitted, model=flow).reconstruct(IMAGES)


@pytest.mark.slow
def test_labels_and_weights_reach_a_loss():
    loss = functools.partial(vf.losses.elbo, free_bits=0.01)
    warm = {"beta": optax.linear_schedule(0.0, 1.0, 50)}
    fitted = vf.fit(vae(num_classes=2), IMAGES, context=LABELS, loss=loss, weights=warm, steps=100)
    assert fitted.sample(3, context=np.array([0, 1])).shape == (3, 2, 4, 4, 1)
    assert fitted.log_prob(IMAGES[:5], context=LABELS[:5]).shape == (5,)
    of_each = fitted.reconstruct(IMAGES[:5], context=np.ones(5, int))
    np.testing.assert_array_equal(fitted.reconstruct(IMAGES[:5], context=1), of_each)
    with pytest.raises(ValueError, match="context"):
        fitted.log_prob(IMAGES[:5])


@pytest.mark.slow
def test_a_dataset_has_its_own_split():
    dataset = vf.data.open_dataset(vf.data.DataConfig("embedded:faces"))
    flow = vf.flows.Glow(dataset.shape, num_levels=1, num_steps=1, hidden_features=4)
    model = vf.models.FlowModel(flow, vf.models.UniformDequantizer())
    fitted = vf.fit(model, dataset, steps=3)
    assert fitted.summary["examples"] == len(dataset.train)
    assert fitted.summary["validation_examples"] == len(dataset.validation)
    assert fitted.summary["standardized"] == ""
    images = vf.data.stack(dataset.test, 4)["image"]
    log_prob = fitted.log_prob(images)
    np.testing.assert_array_equal(fitted.log_prob(images), log_prob)
    assert not np.array_equal(fitted.log_prob(images, seed=1), log_prob)
    with pytest.raises(ValueError, match="context must be an entry of the data set"):
        vf.fit(model, dataset, context="colour", steps=3)


def test_an_energy_is_fitted_with_its_normalizer():
    """Of a normal density times e^3: the flow, affine, can be exact."""
    scale = jnp.array([0.5, 2.0])

    def energy(x):
        return 0.5 * jnp.sum(((x - 1.0) / scale) ** 2, axis=-1) - 3.0

    flow = vf.flows.InverseAutoregressiveFlow((2,), num_steps=1, hidden_sizes=(8,))
    q = vf.fit_energy(flow, energy, steps=300, learning_rate=3e-2, batch_size=64)
    assert q.log_normalizer == pytest.approx(3.0 + math.log(2 * math.pi), abs=0.02)
    assert q.effective_sample_size > 0.95
    np.testing.assert_allclose(q.sample(4000).mean(0), [1.0, 1.0], atol=0.15)
    assert "effective sample size 9" in repr(q)
    assert {"step", "free_energy", "effective_sample_size"} <= set(q.history[-1])
    for message, wrong in {
        "steps must be an integer of at least 1, got 0": {"steps": 0},
        r"warm_up must be a share in \[0, 1\], got 2": {"warm_up": 2},
        "num_samples must be an integer of at least 1, got 0": {"num_samples": 0},
    }.items():
        with pytest.raises(ValueError, match=message):
            vf.fit_energy(flow, energy, **wrong)
