"""Bounds on the evidence, held against a model whose evidence is known."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import linear_gaussian as exact
from tests.variables import noisy
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
    model, more = exact.model(), {} if name == "elbo" else {"num_samples": 5}

    @jax.jit
    def run(variables):
        loss = functools.partial(BOUNDS[name], model, variables, exact.BATCH, KEY)
        value, aux = loss()
        return value, aux.metrics, loss(**more)[1].metrics

    value, metrics, of_more = jax.device_get(run(exact.exact_variables()))
    np.testing.assert_allclose(-value, exact.log_likelihood().mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["negative_elbo"], value, rtol=1e-5)
    total = metrics["reconstruction"] + metrics["kl"]
    np.testing.assert_allclose(total, value, rtol=1e-5)
    np.testing.assert_allclose(metrics["bits_per_dim"], value / (4 * np.log(2)), rtol=1e-5)
    if name != "elbo":
        np.testing.assert_allclose(of_more["effective_sample_size"], 1, rtol=1e-4)


def test_bounds_rise_to_the_evidence(diagonal):
    # Averaged over many draws the first is the ELBO.
    rows = {"image": np.tile(exact.DATA, (2000, 1, 1, 1))}

    @jax.jit
    def run(variables):
        bounds = [
            -losses.importance_weighted(DIAGONAL, variables, rows, KEY, num_samples=samples)[0]
            for samples in (1, 2, 8)
        ]
        estimate = metrics.importance_weighted_log_likelihood(
            DIAGONAL, variables, exact.DATA, KEY, num_samples=20_000, chunk=2000
        )
        return bounds, estimate, -losses.elbo(DIAGONAL, variables, rows, KEY)[0]

    bounds, estimate, elbo = jax.device_get(run(diagonal))
    truth = exact.log_likelihood().mean()
    assert bounds[0] + 0.05 < bounds[1] < bounds[2] - 0.05 < truth - 0.06
    assert estimate.mean() == pytest.approx(truth, abs=0.02)
    assert elbo == pytest.approx(float(bounds[0]), abs=0.1)


def test_chunks_add_up(diagonal):
    estimate = functools.partial(
        metrics.importance_weighted_log_likelihood, DIAGONAL, diagonal, exact.DATA, num_samples=4000
    )
    coarse, fine = jax.jit(lambda key: [estimate(key, chunk=chunk) for chunk in (4000, 50)])(KEY)
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

    run = jax.vmap(lambda key: tuple(one(key)))
    return jax.device_get(jax.jit(lambda key: run(jax.random.split(key, count)))(KEY))


@pytest.mark.parametrize(
    ("name", "samples"),
    [
        pytest.param("sticking_the_landing", 1, marks=pytest.mark.slow),
        ("doubly_reparameterized", 4),
    ],
)
def test_gradients_of_less_variance_have_the_same_mean(name, samples):
    # Near the exact posterior, where the plain gradient is mostly noise.
    model = exact.model()

    variables = noisy(exact.exact_variables(), 0.05)
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


@pytest.mark.slow
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
    options = [{}, {"beta": 4.0}, {"capacity": 1e3, "beta": 2.0}, {"free_bits": 0.0}]
    options.append({"free_bits": 50.0})

    @jax.jit
    def compute(variables):
        run = functools.partial(losses.elbo, DIAGONAL, variables, exact.BATCH, KEY)
        posterior = DIAGONAL.apply(variables, exact.DATA, method="posterior").distribution
        each = 0.5 * (posterior.scale**2 + posterior.loc**2 - 1) - jnp.log(posterior.scale)
        limit = each.mean(0).mean()
        values = [run(**given)[0] for given in options]
        return values, run()[1].metrics, each, limit, run(free_bits=limit)[0]

    values, metrics, each, limit, limited = jax.device_get(compute(diagonal))
    plain, beta, capacity, free, many_free = values
    reconstruction, kl = metrics["reconstruction"], metrics["kl"]
    np.testing.assert_allclose(beta, reconstruction + 4 * kl, rtol=1e-5)
    np.testing.assert_allclose(capacity, reconstruction + 2 * (1e3 - kl), rtol=1e-5)
    np.testing.assert_allclose(free, plain, rtol=1e-5)
    np.testing.assert_allclose(many_free, reconstruction + 100, rtol=1e-5)
    np.testing.assert_allclose(kl, each.sum(-1).mean(), rtol=1e-4)
    expected = reconstruction + np.maximum(limit, each.mean(0)).sum()
    np.testing.assert_allclose(limited, expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"exclude each other, got 1\.0 and 2\.0"):
        losses.elbo(DIAGONAL, diagonal, exact.BATCH, KEY, free_bits=1.0, capacity=2.0)


@pytest.mark.parametrize("options", [{"free_bits": 1.0}, {"capacity": None}, {}])
def test_divided_batch_equals_undivided(diagonal, options):
    batch = {"image": np.concatenate([exact.DATA, exact.DATA[:1] + 1])}

    @jax.jit
    def run(variables):
        keys, given = jax.random.split(KEY, 4), dict(options)
        kl = estimators.evidence(DIAGONAL, variables, batch, keys).latents.kl["z"].sum(-1)
        of_parts = kl.reshape(2, 2).mean(-1)
        if "capacity" in options:  # between the KLs of the parts: one is above it, one below
            given = {"capacity": 0.3 * of_parts[0] + 0.7 * of_parts[1]}

        def loss(images, keys, axis=LOCAL):
            value, aux = losses.elbo(
                DIAGONAL, variables, {"image": images}, keys, axis=axis, **given
            )
            return value, aux.metrics

        parts = batch["image"].reshape(2, 2, *exact.SHAPE)
        divided = jax.vmap(functools.partial(loss, axis=Axis("data")), axis_name="data")
        return of_parts, loss(batch["image"], keys), divided(parts, keys.reshape(2, 2))

    of_parts, (whole, found), (values, metrics) = jax.device_get(run(diagonal))
    assert abs(of_parts[0] - of_parts[1]) > 0.1
    np.testing.assert_allclose(values.mean(), whole, rtol=1e-5)
    for name, value in found.items():
        np.testing.assert_allclose(metrics[name].mean(), value, rtol=1e-5)
