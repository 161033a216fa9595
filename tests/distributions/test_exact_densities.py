"""Densities against formulas written out, or other libraries."""

from __future__ import annotations

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from vaeflow import distributions

MEAN = np.array([1.0, -2.0, 0.5])
FACTOR = np.array([[1.0, 0, 0], [0.5, 0.8, 0], [-0.3, 0.2, 1.5]])
X = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


def test_full_gaussian():
    distribution = distributions.FullGaussian(jnp.asarray(MEAN), jnp.asarray(FACTOR))
    expected = scipy.stats.multivariate_normal(MEAN, FACTOR @ FACTOR.T)
    np.testing.assert_allclose(distribution.log_prob(X), expected.logpdf(X), rtol=1e-4)
    np.testing.assert_allclose(distribution.covariance(), FACTOR @ FACTOR.T, rtol=1e-5)
    np.testing.assert_allclose(distribution.variance(), np.diag(FACTOR @ FACTOR.T), rtol=1e-5)
    np.testing.assert_allclose(distribution.mean(), MEAN)


def test_entries_above_the_diagonal_are_not_read():
    spoilt = jnp.asarray(FACTOR) + jnp.triu(jnp.full((3, 3), 7.0), 1)
    values = [
        distributions.FullGaussian(jnp.asarray(MEAN), factor).log_prob(X)
        for factor in (jnp.asarray(FACTOR), spoilt)
    ]
    np.testing.assert_array_equal(*values)


def test_samples_are_reparameterised():
    def sample(mean, factor):
        return distributions.FullGaussian(mean, factor).sample(seed=jax.random.key(0))

    by_mean, by_factor = jax.jacobian(sample, (0, 1))(jnp.asarray(MEAN), jnp.asarray(FACTOR))
    np.testing.assert_allclose(by_mean, np.eye(3))
    noise = np.linalg.solve(FACTOR, sample(jnp.asarray(MEAN), jnp.asarray(FACTOR)) - MEAN)
    expected = np.einsum("ij,k->ijk", np.eye(3), noise) * np.tril(np.ones((3, 3)))
    np.testing.assert_allclose(by_factor, expected, atol=1e-5)


def test_mixture_and_its_clusters():
    weights, means = np.array([0.2, 0.5, 0.3]), np.array([[-4.0], [0.0], [4.0]])
    components = distrax.Independent(distrax.Normal(jnp.asarray(means), jnp.ones((3, 1))), 1)
    mixture = distributions.Mixture(jnp.log(weights), components)
    x = np.array([[-4.0], [-2.0], [0.1], [3.9]], np.float32)
    joint = weights * scipy.stats.norm(means[:, 0], 1).pdf(x)
    np.testing.assert_allclose(mixture.log_prob(x), np.log(joint.sum(1)), rtol=1e-5)
    np.testing.assert_allclose(
        np.exp(mixture.log_responsibilities(x)), joint / joint.sum(1, keepdims=True), rtol=1e-4
    )
    np.testing.assert_array_equal(mixture.component_of(x), [0, 1, 1, 2])


def test_responsibilities_are_finite_far_from_every_component():
    components = distrax.Independent(distrax.Normal(jnp.zeros((3, 2)), jnp.ones((3, 2))), 1)
    mixture = distributions.Mixture(jnp.zeros(3), components)
    shares = jnp.exp(mixture.log_responsibilities(jnp.full((1, 2), 1e6)))
    np.testing.assert_allclose(shares, 1 / 3, rtol=1e-5)


def test_uniform_box():
    box = distributions.UniformBox(jnp.array([0.0, -1.0]), jnp.array([2.0, 3.0]))
    x = np.array([[0.0, -1], [2, 3], [1, 1], [2.001, 0], [1, -1.001]], np.float32)
    expected = [-np.log(8)] * 3 + [-np.inf] * 2
    np.testing.assert_allclose(box.log_prob(x), expected, rtol=1e-6)
    np.testing.assert_array_equal(jax.grad(lambda x: box.log_prob(x).sum())(jnp.asarray(x)), 0)
    np.testing.assert_allclose(box.mean(), [1, 1])
    np.testing.assert_allclose(box.variance(), [4 / 12, 16 / 12], rtol=1e-6)
    # With respect to a corner: d/d low of -log(high - low), finite inside and outside.
    corner = lambda low, x: distributions.UniformBox(  # noqa: E731
        low, jnp.array([2.0, 3.0])
    ).log_prob(x)
    low = jnp.array([0.0, -1.0])
    np.testing.assert_allclose(jax.grad(corner)(low, x[2]), [1 / 2, 1 / 4])
    np.testing.assert_array_equal(jax.grad(corner)(low, x[3]), 0)
