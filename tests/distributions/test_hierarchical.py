"""Hierarchical priors as one distribution."""

from __future__ import annotations

import dataclasses

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


FIRST = Linear(jnp.array([[1.0, -0.5], [0.3, 2.0], [0.0, 0.7]]), 0.5)
SECOND = Linear(jnp.array([[0.4, -1.0, 2.0]]), 0.8)


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
    full = distributions.FullGaussian(jnp.zeros(6), jnp.linalg.cholesky(jnp.float32(covariance())))
    x = jax.random.normal(KEY, (4, 5, 6))
    np.testing.assert_allclose(chain().log_prob(x), full.log_prob(x), rtol=1e-4)
    batched = chain((5,))
    assert batched.batch_shape == (5,)
    assert batched.event_shape == (6,)
    np.testing.assert_allclose(batched.log_prob(x), full.log_prob(x), rtol=1e-4)
    expected = np.full(5, full.log_prob(x[0, 0]))
    np.testing.assert_allclose(batched.log_prob(x[0, 0]), expected, rtol=1e-4)


def test_samples_have_the_density():
    samples, log_prob = chain((2,)).sample_and_log_prob(seed=KEY, sample_shape=100_000)
    assert samples.shape == (100_000, 2, 6)
    np.testing.assert_allclose(log_prob, chain().log_prob(samples), rtol=1e-4)
    for rows in (samples[:, 0], samples[:, 1]):
        np.testing.assert_allclose(np.cov(rows.T), covariance(), atol=0.15)
    assert abs(np.corrcoef(samples[:, 0, 0], samples[:, 1, 0])[0, 1]) < 0.02


def test_split_under_jit():
    value = jnp.arange(6.0)
    parts = jax.jit(lambda distribution: distribution.split(value))(chain())
    assert [part.tolist() for part in parts] == [[0, 1], [2, 3, 4], [5]]
    with pytest.raises(ValueError, match=r"\(6,\), got an array of shape \(2, 5\)"):
        chain().log_prob(jnp.zeros((2, 5)))
    alone = distributions.HierarchicalPrior(distributions.standard_normal((3,)))
    np.testing.assert_allclose(
        alone.log_prob(jnp.ones(3)), distributions.standard_normal((3,)).log_prob(jnp.ones(3))
    )
