"""Bounds on the evidence, held against a model whose evidence is known."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import linear_gaussian as exact
from vaeflow import encoders, estimators, flows, losses, metrics
from vaeflow._util.arrays import LOCAL, Axis

KEY = jax.random.key(0)
DIAGONAL = exact.model(encoders.DiagonalGaussianPosterior(exact.LATENTS))
BOUNDS = {
    "elbo": losses.elbo,
    "importance_weighted": losses.importance_weighted,
    "sticking_the_landing": losses.sticking_the_landing,
    "doubly_reparameterized": losses.doubly_reparameterized,
}


@pytest.fixture(scope="module")
def diagonal():
    return exact.diagonal_variables()


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_are_tight_at_the_exact_posterior(name):
    model, variables = exact.model(), exact.exact_variables()
    value, aux = BOUNDS[name](model, variables, exact.BATCH, KEY)
    np.testing.assert_allclose(-value, exact.log_likelihood().mean(), rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["negative_elbo"], value, rtol=1e-5)
    total = aux.metrics["reconstruction"] + aux.metrics["kl"]
    np.testing.assert_allclose(total, value, rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["bits_per_dim"], value / (4 * np.log(2)), rtol=1e-5)
    if name != "elbo":
        found = BOUNDS[name](model, variables, exact.BATCH, KEY, num_samples=5)[1].metrics
        np.testing.assert_allclose(found["effective_sample_size"], 1, rtol=1e-4)


def test_bounds_rise_to_the_evidence(diagonal):
    found = [
        metrics.importance_weighted_log_likelihood(
            DIAGONAL, diagonal, exact.DATA, KEY, num_samples=samples, chunk=min(samples, 2000)
        ).mean()
        for samples in (1, 10, 100, 20_000)
    ]
    # Averaged over many draws the first is the ELBO.
    rows = {"image": jnp.tile(exact.DATA, (2000, 1, 1, 1))}
    bounds = [
        -losses.importance_weighted(DIAGONAL, diagonal, rows, KEY, num_samples=samples)[0]
        for samples in (1, 2, 8)
    ]
    truth = exact.log_likelihood().mean()
    assert bounds[0] + 0.05 < bounds[1] < bounds[2] - 0.05 < truth - 0.06
    assert found[3] == pytest.approx(truth, abs=0.02)
    elbo = -losses.elbo(DIAGONAL, diagonal, rows, KEY)[0]
    assert elbo == pytest.approx(float(bounds[0]), abs=0.1)


def test_chunks_add_up(diagonal):
    estimate = functools.partial(
        metrics.importance_weighted_log_likelihood, DIAGONAL, diagonal, exact.DATA, num_samples=4000
    )
    coarse, fine = estimate(KEY, chunk=4000), jax.jit(functools.partial(estimate, chunk=50))(KEY)
    np.testing.assert_allclose(coarse, fine, atol=0.05)
    with pytest.raises(ValueError, match="chunk must divide num_samples, got 3 and 4000"):
        estimate(KEY, chunk=3)


def gradients(name, model, variables, count, samples):
    """Gradients of the encoder's first layer for many keys, ``[count, entry]``."""

    def one(key):
        loss = functools.partial(
            BOUNDS[name], model, batch=exact.BATCH, rng=key, num_samples=samples
        )
        gradient = jax.grad(lambda variables: loss(variables=variables)[0])(variables)
        flat = jax.tree.leaves(gradient["params"]["encoder"])
        decoder = jax.tree.leaves(gradient["params"]["decoder"])
        return (jnp.concatenate([leaf.ravel() for leaf in leaves]) for leaves in (flat, decoder))

    keys = jax.random.split(KEY, count)
    return jax.jit(jax.vmap(lambda key: tuple(one(key))))(keys)


@pytest.mark.parametrize(
    ("name", "samples"), [("sticking_the_landing", 1), ("doubly_reparameterized", 4)]
)
def test_gradients_of_less_variance_have_the_same_mean(name, samples):
    # Near the exact posterior, where the plain gradient is mostly noise.
    model = exact.model()
    variables = jax.tree.map(
        lambda leaf: leaf + 0.05 * jax.random.normal(jax.random.key(leaf.size), leaf.shape),
        exact.exact_variables(),
    )
    plain = gradients("importance_weighted", model, variables, 4000, samples)
    ours = gradients(name, model, variables, 4000, samples)
    for part, (long, short) in enumerate(zip(plain, ours, strict=True)):
        error = np.sqrt((np.var(long, axis=0) + np.var(short, axis=0)) / len(long)) + 1e-4
        deviation = np.abs(np.mean(long, axis=0) - np.mean(short, axis=0)) / error
        assert deviation.max() < 4.5
        if part == 0:
            assert np.var(short, axis=0).sum() < 0.5 * np.var(long, axis=0).sum()


def test_no_gradient_reaches_the_exact_posterior():
    found, _ = gradients("sticking_the_landing", exact.model(), exact.exact_variables(), 5, 1)
    plain, _ = gradients("importance_weighted", exact.model(), exact.exact_variables(), 5, 1)
    assert np.abs(found).max() < 1e-3 < 0.1 < np.abs(plain).max()


def test_gradients_are_defined_for_posteriors_that_are_flows():
    flow = flows.PlanarFlow((exact.LATENTS,), num_steps=2)
    posterior = encoders.FlowPosterior(encoders.DiagonalGaussianPosterior(exact.LATENTS), flow)
    model = exact.model(posterior)
    variables = exact.inexact_variables(model)
    plain = gradients("importance_weighted", model, variables, 2000, 1)[0]
    ours = gradients("sticking_the_landing", model, variables, 2000, 1)[0]
    error = np.sqrt((np.var(plain, axis=0) + np.var(ours, axis=0)) / len(plain)) + 1e-3
    assert (np.abs(np.mean(plain, axis=0) - np.mean(ours, axis=0)) / error).max() < 4.5


def test_weights_of_the_kl(diagonal):
    run = functools.partial(losses.elbo, DIAGONAL, diagonal, exact.BATCH, KEY)
    plain, aux = run()
    reconstruction, kl = aux.metrics["reconstruction"], aux.metrics["kl"]
    np.testing.assert_allclose(run(beta=4.0)[0], reconstruction + 4 * kl, rtol=1e-5)
    np.testing.assert_allclose(
        run(capacity=1e3, beta=2.0)[0], reconstruction + 2 * (1e3 - kl), rtol=1e-5
    )
    np.testing.assert_allclose(run(free_bits=0.0)[0], plain, rtol=1e-5)
    np.testing.assert_allclose(run(free_bits=50.0)[0], reconstruction + 100, rtol=1e-5)
    posterior = DIAGONAL.apply(diagonal, exact.DATA, method="posterior").distribution
    each = 0.5 * (posterior.scale**2 + posterior.loc**2 - 1) - jnp.log(posterior.scale)
    np.testing.assert_allclose(kl, each.sum(-1).mean(), rtol=1e-4)
    limit = float(each.mean(0).mean())
    expected = reconstruction + jnp.maximum(limit, each.mean(0)).sum()
    np.testing.assert_allclose(run(free_bits=limit)[0], expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"exclude each other, got 1\.0 and 2\.0"):
        run(free_bits=1.0, capacity=2.0)


@pytest.mark.parametrize("options", [{"free_bits": 1.0}, {"capacity": None}, {}])
def test_divided_batch_equals_undivided(diagonal, options):
    batch = {"image": jnp.concatenate([exact.DATA, exact.DATA[:1] + 1])}
    keys = jax.random.split(KEY, 4)
    if "capacity" in options:  # between the KLs of the parts: one is above it, one below
        kl = estimators.evidence(DIAGONAL, diagonal, batch, keys).latents.kl["z"].sum(-1)
        parts = kl.reshape(2, 2).mean(-1)
        assert abs(parts[0] - parts[1]) > 0.1
        options = {"capacity": 0.3 * parts[0] + 0.7 * parts[1]}

    def loss(batch, keys, axis=LOCAL):
        value, aux = losses.elbo(DIAGONAL, diagonal, batch, keys, axis=axis, **options)
        return value, aux.metrics

    whole, found = loss(batch, keys)
    parts = {"image": batch["image"].reshape(2, 2, *exact.SHAPE)}
    divided = functools.partial(loss, axis=Axis("data"))
    values, metrics = jax.vmap(divided, axis_name="data")(parts, keys.reshape(2, 2))
    np.testing.assert_allclose(values.mean(), whole, rtol=1e-5)
    for name, value in found.items():
        np.testing.assert_allclose(metrics[name].mean(), value, rtol=1e-5)
