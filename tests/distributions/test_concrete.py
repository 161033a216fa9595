"""Relaxed categorical distributions, and vectors of groups."""

from __future__ import annotations

import functools

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vaeflow import distributions
from vaeflow.distributions.grouped import per_dim_log_prob

KEY = jax.random.key(0)
LOGITS = np.log(np.float32([0.2, 0.5, 0.3]))


@functools.partial(jax.jit, static_argnums=0)
def mass(temperature):
    """The integral of a density over the triangle, whose area is 1/2."""
    # Uniform points of it in coordinates that reach into its corners.
    first, second = jax.random.uniform(KEY, (2, 2_000_000)) ** 3
    weight = 9 * (first * second) ** (2 / 3)
    inside = first + second < 1
    points = jnp.stack([first, second, jnp.where(inside, 1 - first - second, 0.5)], axis=-1)
    log_prob = distributions.Concrete(LOGITS, temperature).log_prob(points)
    return jnp.mean(jnp.where(inside, jnp.exp(log_prob), 0) * weight)


@pytest.mark.parametrize("temperature", [0.66, 1.0, 3.0])
def test_the_density_integrates_to_one_on_the_simplex(temperature):
    assert float(mass(temperature)) == pytest.approx(1, abs=0.02)


def test_two_categories_are_a_logistic_distribution():
    # logit(x_1) = (l_1 - l_2 + logistic noise) / t.
    x = np.linspace(0.01, 0.99, 99)
    logit = np.log(x) - np.log1p(-x)
    noise = 0.7 * logit - 1.7
    expected = scipy.stats.logistic.logpdf(noise) + np.log(0.7) - np.log(x) - np.log1p(-x)
    log_prob = jax.jit(lambda x: distributions.Concrete(jnp.array([1.3, -0.4]), 0.7).log_prob(x))(
        np.float32(np.stack([x, 1 - x], axis=-1))
    )
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4, atol=1e-4)


def test_argmax_has_the_probabilities_of_the_categories():
    @jax.jit
    def facts(logits):
        found = distributions.Concrete(logits, 0.5)
        samples = found.sample(seed=KEY, sample_shape=100_000)
        return samples, found.log_mass(jnp.eye(3)), found.mode(), found.probability

    samples, log_mass, mode, probability = jax.device_get(facts(LOGITS))
    np.testing.assert_allclose(samples.sum(-1), 1, rtol=1e-5)
    share = np.bincount(np.argmax(samples, -1), minlength=3) / 100_000
    np.testing.assert_allclose(share, np.exp(LOGITS), atol=0.01)
    np.testing.assert_allclose(log_mass, LOGITS, rtol=1e-5)
    np.testing.assert_array_equal(mode, [0, 1, 0])
    np.testing.assert_allclose(probability, np.exp(LOGITS), rtol=1e-5)


def test_corners_and_far_logits_are_finite():
    @jax.jit
    @jax.value_and_grad
    def total(logits):
        return distributions.Concrete(logits, 0.66).log_prob(jnp.eye(3)).sum()

    for logits in (LOGITS, 1e3 * LOGITS, np.array([0.0, 1e6, -1e6])):
        value, gradient = jax.device_get(total(np.float32(logits)))
        assert np.isfinite(value)
        assert np.all(np.isfinite(gradient))


def test_batches_and_errors():
    @jax.jit
    def draw(logits):
        found = distributions.Concrete(logits, 0.66)
        samples, log_prob = found.sample_and_log_prob(seed=KEY, sample_shape=5)
        return samples, log_prob, found.log_prob(samples)

    samples, log_prob, again = draw(np.zeros((4, 2, 3), np.float32))
    assert samples.shape == (5, 4, 2, 3)
    assert log_prob.shape == (5, 4, 2)
    np.testing.assert_allclose(log_prob, again, rtol=1e-5)
    with pytest.raises(ValueError, match=r"\(3,\).*\(4, 2\)"):
        distributions.Concrete(np.zeros((4, 2, 3), np.float32), 0.66).log_prob(np.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"temperature must be above 0, got 0\.0"):
        distributions.Concrete(LOGITS, 0.0)


def test_groups_keep_their_order_and_their_names():
    @jax.jit
    def facts(value):
        parts = {
            "b": distrax.Independent(distrax.Normal(jnp.zeros(2), jnp.ones(2)), 1),
            "a": distributions.Concrete(LOGITS, 0.66),
        }
        distribution = distributions.Grouped(parts)
        expected = parts["b"].log_prob(value[:2]) + parts["a"].log_prob(value[2:])
        found = distribution.log_prob(value), per_dim_log_prob(distribution, value)
        return distribution, distribution.split(value)["b"], expected, found

    value = np.float32([0.5, -1.0, 0.2, 0.3, 0.5])
    # What comes out of the function has been taken apart and put together again.
    distribution, piece, expected, (log_prob, terms) = facts(value)
    assert list(distribution.groups) == ["b", "a"]
    np.testing.assert_array_equal(piece, value[:2])
    np.testing.assert_allclose(log_prob, expected, rtol=1e-6)
    assert terms["b"].shape == (2,)
    np.testing.assert_allclose(terms["a"], [np.sum(value[2:] * LOGITS)], rtol=1e-5)
    with pytest.raises(ValueError, match=r"\(5,\), got an array of shape \(4,\)"):
        distribution.split(value[:4])
    wrong = {
        "b": distribution.groups["b"],
        "x": distributions.Concrete(np.zeros((3, 2), np.float32), 1),
    }
    with pytest.raises(ValueError, match=r"'x': \(3,\)"):
        distributions.Grouped(wrong)
