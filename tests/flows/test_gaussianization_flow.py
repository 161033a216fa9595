"""Gaussianization flows: normality of the noise at initialisation, and mass one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vaeflow import distributions, flows


def ring(count):
    """Points near a circle."""
    keys = jax.random.split(jax.random.key(0))
    angle = 2 * jnp.pi * jax.random.uniform(keys[0], (count,))
    radius = 2 + 0.2 * jax.random.normal(keys[1], (count,))
    return radius[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)


def test_initial_flow_makes_data_nearly_normal():
    data = ring(500)
    module = flows.GaussianizationFlow((2,), num_steps=6)
    bijector = module.apply(module.init(jax.random.key(1), data=data))
    noise, log_det = map(np.asarray, jax.jit(bijector.inverse_and_log_det)(data))
    assert np.all(np.isfinite(log_det))
    for entry in noise.T:
        assert scipy.stats.kstest(entry, "norm").statistic < 0.07
    # Its likelihood beats that of the normal distribution with the data's moments.
    log_prob = scipy.stats.norm.logpdf(noise).sum(1) + log_det
    moments = scipy.stats.multivariate_normal(data.mean(0), np.cov(data.T))
    assert log_prob.mean() > moments.logpdf(data).mean() + 0.2


@pytest.mark.slow
def test_density_integrates_to_one():
    module = flows.GaussianizationFlow((2,), num_steps=2, num_components=4)
    bijector = module.apply(module.init(jax.random.key(1), data=ring(64)))
    density = distributions.Transformed(distributions.standard_normal((2,)), bijector)
    side = jnp.linspace(-10, 10, 401)
    grid = jnp.stack(jnp.meshgrid(side, side), axis=-1).reshape(-1, 2)
    total = np.sum(np.exp(jax.jit(density.log_prob)(grid))) * float(side[1] - side[0]) ** 2
    np.testing.assert_allclose(total, 1, atol=1e-3)
