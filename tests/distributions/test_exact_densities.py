"""Densities against formulas written out, or other libraries."""

from __future__ import annotations

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from vaeflow import distributions
from vaeflow.distributions.gaussian import Normal

MEAN = np.array([1.0, -2.0, 0.5])
FACTOR = np.array([[1.0, 0, 0], [0.5, 0.8, 0], [-0.3, 0.2, 1.5]])
X = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


@jax.jit
def density(mean, factor):
    return distributions.FullGaussian(mean, factor).log_prob(X)


def test_full_gaussian():
    distribution = distributions.FullGaussian(np.float32(MEAN), np.float32(FACTOR))
    expected = scipy.stats.multivariate_normal(MEAN, FACTOR @ FACTOR.T)
    # Not compiled as a whole.
    np.testing.assert_allclose(distribution.log_prob(X), expected.logpdf(X), rtol=1e-4)
    np.testing.assert_allclose(distribution.covariance(), FACTOR @ FACTOR.T, rtol=1e-5)
    np.testing.assert_allclose(distribution.variance(), np.diag(FACTOR @ FACTOR.T), rtol=1e-5)
    np.testing.assert_allclose(distribution.mean(), MEAN)


def test_entries_above_the_diagonal_are_not_read():
    spoilt = FACTOR + np.triu(np.full((3, 3), 7.0), 1)
    values = [density(np.float32(MEAN), np.float32(factor)) for factor in (FACTOR, spoilt)]
    np.testing.assert_array_equal(*values)


def test_samples_are_reparameterised():
    def sample(mean, factor):
        drawn = distributions.FullGaussian(mean, factor).sample(seed=jax.random.key(0))
        return drawn, drawn

    slopes, drawn = jax.jit(jax.jacobian(sample, (0, 1), has_aux=True))(
        np.float32(MEAN), np.float32(FACTOR)
    )
    by_mean, by_factor = slopes
    np.testing.assert_allclose(by_mean, np.eye(3))
    noise = np.linalg.solve(FACTOR, drawn - MEAN)
    expected = np.einsum("ij,k->ijk", np.eye(3), noise) * np.tril(np.ones((3, 3)))
    np.testing.assert_allclose(by_factor, expected, atol=1e-5)


def test_mixture_and_its_clusters():
    weights, means = np.array([0.2, 0.5, 0.3]), np.array([[-4.0], [0.0], [4.0]])

    @jax.jit
    def facts(x):
        components = distrax.Independent(distrax.Normal(jnp.asarray(means), jnp.ones((3, 1))), 1)
        found = distributions.Mixture(jnp.log(weights), components)
        return found.log_prob(x), found.log_responsibilities(x), found.component_of(x)

    x = np.array([[-4.0], [-2.0], [0.1], [3.9]], np.float32)
    joint = weights * scipy.stats.norm(means[:, 0], 1).pdf(x)
    log_prob, log_responsibilities, component = jax.device_get(facts(x))
    np.testing.assert_allclose(log_prob, np.log(joint.sum(1)), rtol=1e-5)
    np.testing.assert_allclose(
        np.exp(log_responsibilities), joint / joint.sum(1, keepdims=True), rtol=1e-4
    )
    np.testing.assert_array_equal(component, [0, 1, 1, 2])


def test_responsibilities_are_finite_far_from_every_component():
    @jax.jit
    def log_shares(x):
        components = distrax.Independent(distrax.Normal(jnp.zeros((3, 2)), jnp.ones((3, 2))), 1)
        return distributions.Mixture(jnp.zeros(3), components).log_responsibilities(x)

    shares = np.exp(log_shares(np.full((1, 2), 1e6, np.float32)))
    np.testing.assert_allclose(shares, 1 / 3, rtol=1e-5)


def test_uniform_box():
    x = np.array([[0.0, -1], [2, 3], [1, 1], [2.001, 0], [1, -1.001]], np.float32)

    @jax.jit
    def facts(low, x):
        box = distributions.UniformBox(low, jnp.array([2.0, 3.0]))
        slopes = jax.grad(lambda x: box.log_prob(x).sum())(x)
        # With respect to a corner: d/d low of -log(high - low), finite inside and outside.
        of_corner = jax.jacobian(
            lambda low: distributions.UniformBox(low, jnp.array([2.0, 3.0])).log_prob(x)
        )(low)
        return box.log_prob(x), slopes, box.mean(), box.variance(), of_corner

    density, slopes, mean, variance, of_corner = facts(np.float32([0.0, -1.0]), x)
    np.testing.assert_allclose(density, [-np.log(8)] * 3 + [-np.inf] * 2, rtol=1e-6)
    np.testing.assert_array_equal(slopes, 0)
    np.testing.assert_allclose(mean, [1, 1])
    np.testing.assert_allclose(variance, [4 / 12, 16 / 12], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(of_corner)[2], [1 / 2, 1 / 4])
    np.testing.assert_array_equal(np.asarray(of_corner)[3], 0)


def test_continuous_bernoulli_keeps_its_digits_near_logit_zero():
    logits = np.concatenate([sign * np.geomspace(1e-3, 80, 60) for sign in (-1, 1)])
    exact = 0.5 / np.tanh(logits / 2) - 1 / logits

    @jax.jit
    def run(logits):
        distribution = distributions.ContinuousBernoulli(logits, 0)

        def density(logit):
            return distributions.ContinuousBernoulli(logit, 0).log_prob(jnp.float32(0.25))

        return distribution.mean(), jax.vmap(jax.grad(density))(logits)

    mean, slope = jax.device_get(run(np.float32(logits)))
    np.testing.assert_allclose(mean, exact, rtol=2e-5)
    # d/dl of l x - log(sinh(l / 2) / (l / 2)) is x less the mean.
    np.testing.assert_allclose(slope, 0.25 - exact, rtol=2e-5, atol=2e-7)
    assert run(np.zeros(2, np.float32))[0].tolist() == [0, 0]


def test_continuous_bernoulli_samples_by_its_distribution_function():
    logits = np.float32([-60, -2, -0.99, -1e-3, 0, 1e-3, 0.5, 1.01, 60])

    @jax.jit
    def run(logits):
        distribution = distributions.ContinuousBernoulli(logits, 0)
        return distribution.sample(seed=jax.random.key(0), sample_shape=20_000)

    samples = np.asarray(run(logits), np.float64)
    for logit, column in zip(logits.astype(float), samples.T, strict=True):
        below = column + 0.5 if logit == 0 else np.expm1(logit * (column + 0.5)) / np.expm1(logit)
        assert scipy.stats.kstest(below, "uniform").pvalue > 1e-3


def test_gradients_by_a_deviation_are_exact_at_every_size():
    def total(log_scale, value):
        return jnp.sum(Normal(jnp.float32(0), jnp.exp(log_scale)).log_prob(value))

    def discretized(log_scale, value):
        zero = jnp.zeros((1, 1))
        scale = jnp.exp(log_scale)[None]
        found = distributions.DiscretizedLogisticMixture(zero, zero, scale, 1, bits=2)
        return found.log_prob(value)

    by_scale = jax.jit(jax.grad(total))
    of_masses = jax.jit(jax.grad(discretized))
    for size in (1e-30, 1e-15, 1.0, 1e30):
        found = by_scale(np.float32(np.log([size])), np.float32([1.5 * size]))
        np.testing.assert_allclose(found, 1.5**2 - 1, rtol=1e-4)
    # The mass of an inner cell of width 1/4 falls as one over the deviation.
    found = of_masses(np.float32(np.log([1e25])), np.float32([0.125]))
    np.testing.assert_allclose(found, -1, rtol=1e-4)


def test_a_mixture_of_no_values_is_empty():
    components = distrax.Independent(distrax.Normal(jnp.zeros((3, 2)), jnp.ones((3, 2))), 1)
    found = jax.eval_shape(
        distributions.Mixture(jnp.zeros(3), components).log_prob, np.ones((0, 2))
    )
    assert found.shape == (0,)
