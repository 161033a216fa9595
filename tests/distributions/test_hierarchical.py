"""Hierarchical priors as one distribution."""

from __future__ import annotations

import dataclasses

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vaeflow import distributions

KEY = jax.random.key(0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Linear:
    """Normals around a linear function of the level above."""

    matrix: jax.Array
    scale: float

    def __call__(self, above):
        mean = above @ self.matrix
        return distrax.Independent(distrax.Normal(mean, jnp.full(mean.shape, self.scale)), 1)


FIRST = Linear(np.float32([[1.0, -0.5], [0.3, 2.0], [0.0, 0.7]]), 0.5)
SECOND = Linear(np.float32([[0.4, -1.0, 2.0]]), 0.8)


def chain(batch=()):
    top = distributions.standard_normal((1,), batch)
    return distributions.HierarchicalPrior(top, [FIRST, SECOND])


def covariance():
    """Of z_1, z_2 and z_3, which are jointly normal."""
    noise = np.diag([0.5] * 2 + [0.8] * 3 + [1.0])
    second = np.concatenate([SECOND.matrix @ FIRST.matrix, SECOND.matrix, np.eye(1)], axis=1)
    weights = np.zeros((6, 6))  # noise to values
    weights[:2, :2] = np.eye(2)
    weights[2:5] = np.concatenate([FIRST.matrix, np.eye(3), np.zeros((3, 1))], axis=1)
    weights[5:] = second
    return weights.T @ noise**2 @ weights


def test_the_density_is_that_of_the_joint_normal():
    exact = scipy.stats.multivariate_normal(np.zeros(6), covariance())
    x = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)

    @jax.jit
    def densities(x):
        batched = chain((5,))
        return chain().log_prob(x), batched, batched.log_prob(x), batched.log_prob(x[0, 0])

    single, batched, together, repeated = densities(x)
    np.testing.assert_allclose(single, exact.logpdf(x), rtol=1e-4)
    assert batched.batch_shape == (5,)
    assert batched.event_shape == (6,)
    np.testing.assert_allclose(together, exact.logpdf(x), rtol=1e-4)
    np.testing.assert_allclose(repeated, np.full(5, exact.logpdf(x[0, 0])), rtol=1e-4)


def test_samples_have_the_density():
    @jax.jit
    def draw():
        samples, log_prob = chain((2,)).sample_and_log_prob(seed=KEY, sample_shape=100_000)
        return samples, log_prob, chain().log_prob(samples)

    samples, log_prob, again = jax.device_get(draw())
    assert samples.shape == (100_000, 2, 6)
    np.testing.assert_allclose(log_prob, again, rtol=1e-4)
    for rows in (samples[:, 0], samples[:, 1]):
        np.testing.assert_allclose(np.cov(rows.T), covariance(), atol=0.15)
    assert abs(np.corrcoef(samples[:, 0, 0], samples[:, 1, 0])[0, 1]) < 0.02


def test_split_under_jit():
    @jax.jit
    def facts():
        alone = distributions.HierarchicalPrior(distributions.standard_normal((3,)))
        plain = distributions.standard_normal((3,))
        ones = jnp.ones(3)
        return chain(), (alone.log_prob(ones), plain.log_prob(ones))

    distribution, again = facts()
    value = np.arange(6, dtype=np.float32)
    parts = jax.jit(lambda distribution: distribution.split(value))(distribution)
    assert [part.tolist() for part in parts] == [[0, 1], [2, 3, 4], [5]]
    with pytest.raises(ValueError, match=r"\(6,\), got an array of shape \(2, 5\)"):
        distribution.log_prob(np.zeros((2, 5)))
    np.testing.assert_allclose(*again)
