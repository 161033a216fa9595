"""Penalties on the moments of the aggregate posterior, and distances from the prior."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from tests import linear_gaussian as exact
from vaeflow import encoders, losses
from vaeflow._util.arrays import Axis

KEY = jax.random.key(0)
MODEL = exact.model(encoders.DiagonalGaussianPosterior(exact.LATENTS))
BATCH = {"image": np.random.RandomState(2).normal(size=(8, *exact.SHAPE)).astype(np.float32)}


@pytest.fixture(scope="module")
def variables():
    return exact.diagonal_variables()


@pytest.mark.parametrize("of_samples", [False, True])
def test_penalty_is_that_of_the_covariance(variables, of_samples):
    @jax.jit
    def run(variables):
        weights = {"off_diagonal": 3.0, "diagonal": 5.0, "of_samples": of_samples}
        value, aux = losses.dip_vae(MODEL, variables, BATCH, KEY, **weights)
        posterior = MODEL.apply(variables, BATCH["image"], method="posterior")
        plain = losses.elbo(MODEL, variables, BATCH, KEY)[0]
        return value, aux.metrics["penalty"], plain, posterior.mean(), posterior.variance()

    value, penalty, plain, mean, variance = jax.device_get(run(variables))
    covariance = np.cov(mean.T, bias=True)
    if of_samples:
        covariance += np.diag(variance.mean(0))
    identity = np.eye(exact.LATENTS)
    off = np.sum(covariance**2 * (1 - identity))
    on = np.sum((np.diag(covariance) - 1) ** 2)
    np.testing.assert_allclose(penalty, 3 * off + 5 * on, rtol=1e-4)
    np.testing.assert_allclose(value, plain + penalty, rtol=1e-5)


def test_discrepancy_of_equal_distributions_is_zero_on_average():
    def one(key):
        x, y = jax.random.normal(key, (2, 50, 3))
        shifted = losses.maximum_mean_discrepancy(x, y + 0.7)
        return losses.maximum_mean_discrepancy(x, y), shifted

    draws = jax.jit(lambda key: jax.lax.map(one, jax.random.split(key, 1000)))(KEY)
    equal, shifted = jax.device_get(draws)
    assert abs(equal.mean()) < 4 * equal.std() / np.sqrt(1000)
    assert equal.min() < 0 < equal.max()
    assert shifted.mean() > 10 * equal.std()


def test_discrepancy_against_a_slow_reference():
    x, y = np.random.RandomState(3).normal(size=(2, 5, 2))

    def kernel(a, b):
        square = np.sum((a - b) ** 2)
        scales = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
        return sum(4 * scale / (4 * scale + square) for scale in scales)

    rows = range(5)
    pairs = [(i, j) for i in rows for j in rows if i != j]
    within = np.mean([kernel(x[i], x[j]) + kernel(y[i], y[j]) for i, j in pairs])
    across = np.mean([kernel(x[i], y[j]) for i in rows for j in rows])
    found = jax.jit(losses.maximum_mean_discrepancy)(np.float32(x), np.float32(y))
    np.testing.assert_allclose(found, within - 2 * across, rtol=1e-4)
    with pytest.raises(ValueError, match=r"got \(1, 2\) and \(1, 2\)"):
        losses.maximum_mean_discrepancy(np.zeros((1, 2)), np.zeros((1, 2)))


def test_weights_of_the_wasserstein_auto_encoder(variables):
    loss = functools.partial(losses.info_vae, MODEL, alpha=0.25, weight=7.0)
    value, aux = jax.jit(loss)(variables, BATCH, KEY)
    parts = aux.metrics
    expected = parts["reconstruction"] + 0.75 * parts["kl"] + 7 * parts["discrepancy"]
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert abs(float(parts["discrepancy"])) > 1e-3


@pytest.mark.parametrize("loss", [losses.dip_vae, losses.info_vae])
def test_divided_batch_equals_undivided(variables, loss):
    @jax.jit
    def run(variables):
        keys = jax.random.split(KEY, 8)

        def part(images, keys):
            value, aux = loss(MODEL, variables, {"image": images}, keys, axis=Axis("data"))
            return value, aux.metrics

        parts = BATCH["image"].reshape(4, 2, *exact.SHAPE)
        divided = jax.vmap(part, axis_name="data")(parts, keys.reshape(4, 2))
        whole = jax.value_and_grad(
            lambda variables: loss(MODEL, variables, BATCH, keys), has_aux=True
        )
        return whole(variables), divided

    ((whole, found), gradient), (values, metrics) = jax.device_get(run(variables))
    np.testing.assert_allclose(values.mean(), whole, rtol=1e-5)
    for name, value in found.metrics.items():
        np.testing.assert_allclose(metrics[name].mean(), value, rtol=1e-4, atol=1e-5)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
