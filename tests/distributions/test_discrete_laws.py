"""Laws of discrete distributions: mass one, frequencies of samples, edges."""

from __future__ import annotations

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.raster_networks import gated, initialised
from vaeflow import distributions
from vaeflow.bijectors import Conditioner

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
    return distributions.PixelCategorical(numbers(*batch, 2, 4), 1)


def code_maps(*batch):
    network = gated((2, 1), 3, channels=4, num_blocks=1)
    context = numbers(*batch, 2, seed=5)
    variables = initialised(network, context.reshape(-1, 2))
    return distributions.CodeMaps(Conditioner(network, variables, context, 2))


REGISTRY = {
    "Bernoulli": (bernoulli, BITS),
    "DiscretizedLogisticMixture": (logistic, LEVELS),
    "PixelCategorical": (categorical, LEVELS),
    "CodeMaps": (code_maps, (0, 1, 2)),
}
"""Distributions of pairs by name, made for any batch shape, with the values of an entry."""

every = pytest.mark.parametrize(("make", "levels"), REGISTRY.values(), ids=REGISTRY)


def pairs(levels, distribution):
    values = np.array(list(itertools.product(levels, levels)), distribution.dtype)
    return values.reshape(-1, *distribution.event_shape)


def of_event(distribution):
    """The axes of an event, from the last one."""
    return tuple(range(-len(distribution.event_shape), 0))


@every
def test_probabilities_add_up_to_one(make, levels):
    log_prob = make().log_prob(pairs(levels, make()))
    assert jnp.exp(log_prob).sum() == pytest.approx(1, abs=1e-5)


@every
def test_frequencies_equal_probabilities(make, levels):
    distribution = make()
    samples = np.asarray(distribution.sample(seed=KEY, sample_shape=40_000))
    support = pairs(levels, distribution)
    same = np.all(np.abs(samples[:, None] - support) < 1e-6, axis=of_event(distribution))
    assert np.all(same.sum(1) == 1)
    probability = np.exp(distribution.log_prob(support))
    error = np.sqrt(probability / len(samples)) + 1e-6
    assert np.max(np.abs(same.mean(0) - probability) / error) < 4.5


@every
def test_batches_equal_single_distributions(make, levels):
    distribution = make(3, 2)
    assert distribution.batch_shape == (3, 2)
    assert np.prod(distribution.event_shape) == 2
    samples, log_prob = distribution.sample_and_log_prob(seed=KEY, sample_shape=(4, 5))
    assert samples.shape == (4, 5, 3, 2, *distribution.event_shape)
    assert samples.dtype == distribution.dtype
    assert log_prob.dtype == jnp.float32
    np.testing.assert_allclose(log_prob, distribution.log_prob(samples), rtol=1e-5)
    assert np.all(np.isin(np.asarray(samples), np.array(levels, distribution.dtype)))
    # Leaves without batch axes are the parameters that all of a batch share.
    row = jax.tree.map(lambda leaf: leaf[1, 0] if leaf.shape[:2] == (3, 2) else leaf, distribution)
    np.testing.assert_allclose(row.log_prob(samples[0, 0, 1, 0]), log_prob[0, 0, 1, 0], rtol=1e-5)
    if jnp.issubdtype(distribution.dtype, jnp.floating):  # codes have no mean
        assert distribution.mean().shape == samples.shape[2:]


@every
def test_bad_row_is_isolated(make, levels):
    distribution = make()
    values = jnp.full((4, *distribution.event_shape), levels[0], distribution.dtype)
    number = jnp.issubdtype(distribution.dtype, jnp.floating)
    log_prob = distribution.log_prob(values.at[1, 0].set(jnp.nan if number else -1))
    is_bad = jnp.isnan if number else jnp.isneginf
    np.testing.assert_array_equal(is_bad(log_prob), [False, True, False, False])
    assert jnp.all(jnp.isfinite(log_prob[2:]))


@every
def test_values_and_gradients_are_finite_far_out(make, levels):
    for factor in (0.0, 1e3, -1e6):
        # Scales of logistic distributions are positive.
        distribution = jax.tree.map(lambda leaf, f=factor: jnp.abs(f * leaf) + 1e-4, make())
        value, gradient = jax.value_and_grad(lambda d: d.log_prob(pairs(levels, d)).sum())(
            distribution
        )
        assert all(np.all(np.isfinite(leaf)) for leaf in (value, *jax.tree.leaves(gradient)))


@every
def test_wrong_events_raise_quoting_both_shapes(make, levels):
    event = re.escape(str(make().event_shape))
    with pytest.raises(ValueError, match=rf"{event}.*\(5, 3\)"):
        make().log_prob(jnp.zeros((5, 3)))


def test_bernoulli_against_formulas():
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
