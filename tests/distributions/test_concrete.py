"""Relaxed categorical distributions, and vectors of groups."""

from __future__ import annotations

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import distributions
from vaeflow.distributions.grouped import per_dim_log_prob

KEY = jax.random.key(0)
LOGITS = jnp.log(jnp.array([0.2, 0.5, 0.3]))


@pytest.mark.parametrize("temperature", [0.66, 1.0, 3.0])
def test_the_density_integrates_to_one_on_the_simplex(temperature):
    distribution = distributions.Concrete(LOGITS, temperature)
    # Uniform points of the triangle, whose area is 1/2, in coordinates that reach into its corners.
    first, second = jax.random.uniform(KEY, (2, 2_000_000))
    first, second = first**3, second**3
    weight = 9 * (first * second) ** (2 / 3)
    inside = first + second < 1
    points = jnp.stack([first, second, jnp.where(inside, 1 - first - second, 0.5)], axis=-1)
    density = jnp.where(inside, jnp.exp(distribution.log_prob(points)), 0)
    assert float(jnp.mean(density * weight)) == pytest.approx(1, abs=0.02)


def test_two_categories_are_a_logistic_distribution():
    # logit(x_1) = (l_1 - l_2 + logistic noise) / t.
    distribution = distributions.Concrete(jnp.array([1.3, -0.4]), 0.7)
    x = jnp.linspace(0.01, 0.99, 99)
    logit = jnp.log(x) - jnp.log1p(-x)
    noise = 0.7 * logit - 1.7
    expected = jax.scipy.stats.logistic.logpdf(noise) + jnp.log(0.7) - jnp.log(x) - jnp.log1p(-x)
    log_prob = distribution.log_prob(jnp.stack([x, 1 - x], axis=-1))
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4, atol=1e-4)


def test_argmax_has_the_probabilities_of_the_categories():
    distribution = distributions.Concrete(LOGITS, 0.5)
    samples = distribution.sample(seed=KEY, sample_shape=100_000)
    np.testing.assert_allclose(samples.sum(-1), 1, rtol=1e-5)
    share = np.bincount(np.argmax(samples, -1), minlength=3) / 100_000
    np.testing.assert_allclose(share, jnp.exp(LOGITS), atol=0.01)
    corners = jnp.eye(3)
    np.testing.assert_allclose(distribution.log_mass(corners), LOGITS, rtol=1e-5)
    np.testing.assert_array_equal(distribution.mode(), [0, 1, 0])
    np.testing.assert_allclose(distribution.mean(), jnp.exp(LOGITS), rtol=1e-5)


def test_corners_and_far_logits_are_finite():
    for logits in (LOGITS, 1e3 * LOGITS, jnp.array([0.0, 1e6, -1e6])):
        value, gradient = jax.value_and_grad(
            lambda logits: distributions.Concrete(logits, 0.66).log_prob(jnp.eye(3)).sum()
        )(logits)
        assert np.isfinite(value)
        assert np.all(np.isfinite(gradient))


def test_batches_and_errors():
    distribution = distributions.Concrete(jnp.zeros((4, 2, 3)), 0.66)
    samples, log_prob = distribution.sample_and_log_prob(seed=KEY, sample_shape=5)
    assert samples.shape == (5, 4, 2, 3)
    assert log_prob.shape == (5, 4, 2)
    np.testing.assert_allclose(log_prob, distribution.log_prob(samples), rtol=1e-5)
    with pytest.raises(ValueError, match=r"\(3,\).*\(4, 2\)"):
        distribution.log_prob(jnp.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"temperature must be above 0, got 0\.0"):
        distributions.Concrete(LOGITS, 0.0)


def test_groups_keep_their_order_and_their_names():
    parts = {
        "b": distrax.Independent(distrax.Normal(jnp.zeros(2), jnp.ones(2)), 1),
        "a": distributions.Concrete(LOGITS, 0.66),
    }
    distribution = distributions.Grouped(parts)
    assert list(distribution.groups) == ["b", "a"]
    value = jnp.array([0.5, -1.0, 0.2, 0.3, 0.5])
    pieces = distribution.split(value)
    np.testing.assert_array_equal(pieces["b"], value[:2])
    expected = parts["b"].log_prob(value[:2]) + parts["a"].log_prob(value[2:])
    np.testing.assert_allclose(distribution.log_prob(value), expected, rtol=1e-6)
    terms = per_dim_log_prob(distribution, value)
    assert terms["b"].shape == (2,)
    np.testing.assert_allclose(terms["a"], [jnp.sum(value[2:] * LOGITS)], rtol=1e-5)
    through = jax.jit(lambda distribution: distribution)(distribution)
    assert list(through.groups) == ["b", "a"]
    with pytest.raises(ValueError, match=r"\(5,\), got shape \(4,\)"):
        distribution.split(value[:4])
    with pytest.raises(ValueError, match=r"'x': \(3,\)"):
        distributions.Grouped({"b": parts["b"], "x": distributions.Concrete(jnp.zeros((3, 2)), 1)})
