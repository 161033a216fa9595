"""Laws of discrete distributions: mass one, frequencies of samples, edges."""

from __future__ import annotations

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.drawn import KEY, SHAPE, drawn, log_prob, made, sample
from tests.raster_networks import gated, noisy_variables
from vaeflow import distributions
from vaeflow.bijectors import Conditioner

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
    variables = noisy_variables(network, context.reshape(-1, 2)[:1])
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
    distribution = made(make)
    probability = np.exp(log_prob(distribution, pairs(levels, distribution)))
    assert probability.sum() == pytest.approx(1, abs=1e-5)


@every
def test_frequencies_equal_probabilities(make, levels):
    distribution = made(make)
    samples = np.asarray(sample(distribution, (40_000,)))
    support = pairs(levels, distribution)
    same = np.all(np.abs(samples[:, None] - support) < 1e-6, axis=of_event(distribution))
    assert np.all(same.sum(1) == 1)
    probability = np.exp(log_prob(distribution, support))
    error = np.sqrt(probability / len(samples)) + 1e-6
    assert np.max(np.abs(same.mean(0) - probability) / error) < 4.5


@every
def test_batches_equal_single_distributions(make, levels):
    distribution, samples, density, again = drawn(make, 3, 2)
    assert distribution.batch_shape == (3, 2)
    assert np.prod(distribution.event_shape) == 2
    assert samples.shape == (*SHAPE, 3, 2, *distribution.event_shape)
    assert samples.dtype == distribution.dtype
    assert density.dtype == np.float32
    np.testing.assert_allclose(density, again, rtol=1e-5)
    assert np.all(np.isin(samples, np.array(levels, distribution.dtype)))
    # Leaves without batch axes are the parameters that all of a batch share.
    row = jax.tree.map(
        lambda leaf: leaf[1, 0] if leaf.shape[:2] == (3, 2) else leaf, jax.device_get(distribution)
    )
    np.testing.assert_allclose(log_prob(row, samples[0, 0, 1, 0]), density[0, 0, 1, 0], rtol=1e-5)
    if jnp.issubdtype(distribution.dtype, jnp.floating):  # codes have no mean
        mean = jax.eval_shape(lambda distribution: distribution.mean(), distribution)
        assert mean.shape == samples.shape[2:]


@every
def test_bad_row_is_isolated(make, levels):
    distribution = made(make)
    values = np.full((4, *distribution.event_shape), levels[0], distribution.dtype)
    number = jnp.issubdtype(distribution.dtype, jnp.floating)
    values[1, 0] = np.nan if number else -1
    density = np.asarray(log_prob(distribution, values))
    is_bad = np.isnan if number else np.isneginf
    np.testing.assert_array_equal(is_bad(density), [False, True, False, False])
    assert np.all(np.isfinite(density[2:]))


@jax.jit
def total_and_gradient(distribution, values):
    return jax.value_and_grad(lambda distribution: distribution.log_prob(values).sum())(
        distribution
    )


@every
def test_values_and_gradients_are_finite_far_out(make, levels):
    distribution = jax.device_get(made(make))
    for factor in (0.0, 1e3, -1e6):
        # Scales of logistic distributions are positive.
        far = jax.tree.map(lambda leaf, f=factor: np.abs(f * leaf) + 1e-4, distribution)
        found = jax.device_get(total_and_gradient(far, pairs(levels, distribution)))
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))


@every
def test_wrong_events_raise_quoting_both_shapes(make, levels):
    event = re.escape(str(made(make).event_shape))
    with pytest.raises(ValueError, match=rf"{event}.*\(5, 3\)"):
        made(make).log_prob(np.zeros((5, 3), np.float32))


def test_bernoulli_against_formulas():
    logits = np.random.default_rng(0).normal(size=2)
    probability = 1 / (1 + np.exp(-logits))

    @jax.jit
    def facts(logits):
        found = distributions.Bernoulli(logits, 1)
        value = jnp.array([1.0, 0.0])
        return found.log_prob(value), found.mean(), found.mode(), found.entropy()

    density, mean, mode, entropy = jax.device_get(facts(np.float32(logits)))
    expected = np.log(probability[0]) + np.log(1 - probability[1])
    np.testing.assert_allclose(density, expected, rtol=1e-6)
    np.testing.assert_allclose(mean, probability, rtol=1e-6)
    np.testing.assert_array_equal(mode, probability > 0.5)
    exact = -(probability * np.log(probability) + (1 - probability) * np.log(1 - probability))
    np.testing.assert_allclose(entropy, exact.sum(), rtol=1e-5)


@jax.jit
def slope_of_bernoulli(logit):
    def density(logit):
        return distributions.Bernoulli(logit, 0).log_prob(jnp.float32(1))

    return jax.grad(density)(logit)


@pytest.mark.parametrize("logit", [0.0, -0.0, 1e-30, -20.0, 20.0, -1e3, 1e3, -1e6, 1e6])
def test_bernoulli_has_the_gradient_of_the_sigmoid_at_any_logit(logit):
    exact = 1 / (1 + np.exp(min(logit, 80.0)))
    np.testing.assert_allclose(slope_of_bernoulli(logit), exact, rtol=1e-5, atol=1e-7)


def test_logistic_cells_are_differences_of_the_distribution_function():
    mean, scale = 0.1, 0.05
    edges = np.arange(9) / 8 - 0.5
    edges[0], edges[-1] = -np.inf, np.inf
    expected = np.diff(1 / (1 + np.exp(-(edges - mean) / scale)))
    middles = np.float32((np.arange(8) + 0.5) / 8 - 0.5)[:, None]

    @jax.jit
    def density(middles):
        parameters = (jnp.full((1, 1), value) for value in (0.0, mean, scale))
        return distributions.DiscretizedLogisticMixture(*parameters, 1, bits=3).log_prob(middles)

    np.testing.assert_allclose(np.exp(density(middles)), expected, rtol=1e-4)


def test_continuous_bernoulli_by_quadrature():
    logits = np.float32([-2000.0, -30.0, -0.5, -1e-3, 0.0, 0.049, 0.051, 3.0, 89.0])
    ends = np.where(logits > 0, np.float32(0.5), np.float32(-0.5))

    @jax.jit
    def facts(logits):
        found = distributions.ContinuousBernoulli(logits, 0)
        samples = found.sample(seed=KEY, sample_shape=40_000)
        values = jnp.stack([ends, jnp.full(9, 0.51)])
        return found.mean(), found.log_prob(values), samples

    means, (density, outside), samples = jax.device_get(facts(logits))
    x = np.linspace(-0.5, 0.5, 400_001)
    for index, logit in enumerate(np.float64(logits)):
        weights = np.exp(logit * x - abs(logit) / 2)
        mass = np.trapezoid(weights, x)
        assert means[index] == pytest.approx(np.trapezoid(x * weights, x) / mass, abs=1e-5)
        assert density[index] == pytest.approx(-np.log(mass), abs=2e-3)
    np.testing.assert_allclose(samples.mean(0), means, atol=0.01)
    assert np.all(np.abs(samples) <= 0.5)
    assert np.all(outside == -np.inf)
