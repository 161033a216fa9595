"""What every distribution of levels obeys: mass one, samples as probable, batches, edges."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import distributions

KEY = jax.random.key(4)
LEVELS = (np.arange(4) + 0.5) / 4 - 0.5
BITS = (0.0, 1.0)


def numbers(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def bernoulli(*batch):
    return distributions.Bernoulli(numbers(*batch, 2), 1)


def logistic(*batch, components=3):
    shape = (*batch, 2, components)
    mean, scale = 0.4 * numbers(*shape, seed=1), jnp.exp(numbers(*shape, seed=2) - 2)
    return distributions.DiscretizedLogisticMixture(numbers(*shape, seed=3), mean, scale, 1, bits=2)


def categorical(*batch):
    return distributions.LevelCategorical(numbers(*batch, 2, 4), 1)


REGISTRY = {
    "Bernoulli": (bernoulli, BITS),
    "DiscretizedLogisticMixture": (logistic, LEVELS),
    "LevelCategorical": (categorical, LEVELS),
}
"""Distributions of pairs by name, made for any batch shape, with the values of an entry."""

every = pytest.mark.parametrize(("make", "levels"), REGISTRY.values(), ids=REGISTRY)


def pairs(levels):
    return np.array(list(itertools.product(levels, levels)), np.float32)


@every
def test_probabilities_add_up_to_one(make, levels):
    log_prob = make().log_prob(pairs(levels))
    assert jnp.exp(log_prob).sum() == pytest.approx(1, abs=1e-5)


@every
def test_samples_have_their_probabilities(make, levels):
    distribution = make()
    samples = np.asarray(distribution.sample(seed=KEY, sample_shape=40_000))
    support = pairs(levels)
    same = np.all(np.abs(samples[:, None] - support) < 1e-6, axis=-1)
    assert np.all(same.sum(1) == 1)
    probability = np.exp(distribution.log_prob(support))
    error = np.sqrt(probability / len(samples)) + 1e-6
    assert np.max(np.abs(same.mean(0) - probability) / error) < 4.5


@every
def test_batches_hold_the_single_ones(make, levels):
    distribution = make(3, 2)
    assert distribution.batch_shape == (3, 2)
    assert distribution.event_shape == (2,)
    samples, log_prob = distribution.sample_and_log_prob(seed=KEY, sample_shape=(4, 5))
    assert samples.shape == (4, 5, 3, 2, 2)
    assert samples.dtype == log_prob.dtype == jnp.float32
    np.testing.assert_allclose(log_prob, distribution.log_prob(samples), rtol=1e-5)
    assert np.all(np.isin(np.asarray(samples), np.float32(levels)))
    row = jax.tree.map(lambda leaf: leaf[1, 0], distribution)
    np.testing.assert_allclose(row.log_prob(samples[0, 0, 1, 0]), log_prob[0, 0, 1, 0], rtol=1e-5)
    assert distribution.mean().shape == (3, 2, 2)


@every
def test_one_bad_row_spoils_no_other(make, levels):
    values = jnp.full((4, 2), levels[0]).at[1, 0].set(jnp.nan)
    np.testing.assert_array_equal(jnp.isnan(make().log_prob(values)), [False, True, False, False])


@every
def test_values_and_gradients_are_finite_far_out(make, levels):
    for factor in (0.0, 1e3, -1e6):
        # Scales of logistic distributions are positive.
        distribution = jax.tree.map(lambda leaf, f=factor: jnp.abs(f * leaf) + 1e-4, make())
        value, gradient = jax.value_and_grad(lambda d: d.log_prob(pairs(levels)).sum())(
            distribution
        )
        assert all(np.all(np.isfinite(leaf)) for leaf in (value, *jax.tree.leaves(gradient)))


@every
def test_wrong_events_are_refused_with_both_shapes(make, levels):
    with pytest.raises(ValueError, match=r"\(2,\).*\(5, 3\)"):
        make().log_prob(jnp.zeros((5, 3)))


def test_bernoulli_is_the_textbook_one():
    distribution = bernoulli()
    probability = 1 / (1 + np.exp(-np.float64(numbers(2))))
    value = jnp.array([1.0, 0.0])
    expected = np.log(probability[0]) + np.log(1 - probability[1])
    np.testing.assert_allclose(distribution.log_prob(value), expected, rtol=1e-6)
    np.testing.assert_allclose(distribution.mean(), probability, rtol=1e-6)
    np.testing.assert_array_equal(distribution.mode(), probability > 0.5)
    entropy = -(probability * np.log(probability) + (1 - probability) * np.log(1 - probability))
    np.testing.assert_allclose(distribution.entropy(), entropy.sum(), rtol=1e-5)


@pytest.mark.parametrize("logit", [0.0, -0.0, 1e-30, -20.0, 20.0, -1e3, 1e3, -1e6, 1e6])
def test_bernoulli_has_the_gradient_of_the_sigmoid_at_any_logit(logit):
    def log_prob(logit):
        return distributions.Bernoulli(logit, 0).log_prob(jnp.float32(1))

    exact = 1 / (1 + np.exp(min(logit, 80.0)))
    np.testing.assert_allclose(jax.grad(log_prob)(logit), exact, rtol=1e-5, atol=1e-7)


def test_logistic_cells_are_differences_of_the_distribution_function():
    mean, scale = 0.1, 0.05
    found = distributions.DiscretizedLogisticMixture(
        jnp.zeros((1, 1)), jnp.full((1, 1), mean), jnp.full((1, 1), scale), 1, bits=3
    )
    edges = np.arange(9) / 8 - 0.5
    edges[0], edges[-1] = -np.inf, np.inf
    expected = np.diff(1 / (1 + np.exp(-(edges - mean) / scale)))
    middles = ((np.arange(8) + 0.5) / 8 - 0.5)[:, None]
    np.testing.assert_allclose(np.exp(found.log_prob(jnp.float32(middles))), expected, rtol=1e-4)


def test_continuous_bernoulli_by_quadrature():
    logits = jnp.array([-2000.0, -30.0, -0.5, -1e-3, 0.0, 0.049, 0.051, 3.0, 89.0])
    found = distributions.ContinuousBernoulli(logits, 0)
    x = np.linspace(-0.5, 0.5, 400_001)
    for index, logit in enumerate(np.float64(logits)):
        weights = np.exp(logit * x - abs(logit) / 2)
        mass = np.trapezoid(weights, x)
        mean = np.trapezoid(x * weights, x) / mass
        assert float(found.mean()[index]) == pytest.approx(mean, abs=1e-5)
        at = 0.5 if logit > 0 else -0.5
        density = float(found.log_prob(jnp.full(9, at))[index])
        assert density == pytest.approx(-np.log(mass), abs=2e-3)
    samples = np.asarray(found.sample(seed=KEY, sample_shape=40_000))
    np.testing.assert_allclose(samples.mean(0), found.mean(), atol=0.01)
    assert np.all(np.abs(samples) <= 0.5)
    assert np.all(found.log_prob(jnp.full(9, 0.51)) == -np.inf)
