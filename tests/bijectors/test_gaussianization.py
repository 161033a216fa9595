"""Gaussianization by mixtures, and the tails of the normal distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vaeflow import bijectors
from vaeflow.bijectors.gaussianization import (
    log_hazard,
    log_tail,
    mixture_of_quantiles,
    tail_quantile,
)
from vaeflow.bijectors.orthogonal import householder_product

WEIGHTS = np.array([0.0, 0.5, -1.0], np.float32)
CENTRES = np.array([-1.0, 0.2, 3.0], np.float32)
LOG_SCALES = np.array([0.0, -0.5, 0.3], np.float32)


def mixture():
    return bijectors.MixtureGaussianization(WEIGHTS, CENTRES, LOG_SCALES, event_ndims=0)


def test_tails_are_scipys():
    z = np.array([-30, -5, -1, 0, 0.3, 2, 4.9, 5.1, 12, 30, 1e3], np.float32)
    expected = scipy.stats.norm.logsf(np.float64(z))
    np.testing.assert_allclose(log_tail(z), expected, rtol=1e-6, atol=1e-12)
    hazard = scipy.stats.norm.logpdf(np.float64(z)) - expected
    np.testing.assert_allclose(log_hazard(z), hazard, rtol=3e-6, atol=3e-6)
    np.testing.assert_allclose(tail_quantile(log_tail(z))[3:], z[3:], rtol=1e-6, atol=1e-6)
    # Far out the hazard is z + 1 / z, and its logarithm has the slope 1 / z.
    far = jnp.array([1e3, 1e6])
    np.testing.assert_allclose(jax.vmap(jax.grad(log_tail))(far), -far, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(jax.grad(log_hazard))(far), 1 / far, rtol=1e-5)
    np.testing.assert_allclose(
        jax.vmap(jax.grad(tail_quantile))(-(far**2) / 2), -1 / far, rtol=1e-4
    )


def test_values_and_slopes_equal_the_formula():
    x = np.linspace(-4, 5, 19)
    weights = np.exp(WEIGHTS) / np.exp(WEIGHTS).sum()
    kernels = scipy.stats.norm(np.float64(CENTRES), np.exp(np.float64(LOG_SCALES)))
    expected = scipy.stats.norm.ppf(kernels.cdf(x[:, None]) @ weights)
    slope = kernels.pdf(x[:, None]) @ weights / scipy.stats.norm.pdf(expected)
    y, log_det = mixture().forward_and_log_det(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(y, expected, atol=2e-6)
    np.testing.assert_allclose(log_det, np.log(slope), atol=5e-6)


def test_tails_have_the_slope_of_the_widest_kernel():
    x = jnp.array([-1e6, -1e3, 1e3, 1e6, 1e18])
    widest = np.exp(-LOG_SCALES.max())
    y, log_det = mixture().forward_and_log_det(x)
    np.testing.assert_allclose(y / x, widest, rtol=5e-3)
    np.testing.assert_allclose(log_det, np.log(widest), atol=1e-4)
    back, _ = mixture().inverse_and_log_det(y)
    np.testing.assert_allclose(back, x, rtol=1e-5)


def test_one_kernel_is_affine():
    line = bijectors.MixtureGaussianization(jnp.zeros(1), jnp.ones(1), jnp.zeros(1), 0)
    x = jnp.array([-1e3, -3, 1, 1.5, 40])
    y, log_det = line.forward_and_log_det(x)
    np.testing.assert_allclose(y, x - 1, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(log_det, 0, atol=3e-6)


def test_mixtures_at_quantiles_make_data_near_normal():
    generator = np.random.default_rng(0)
    sides = np.where(generator.random(1000) < 0.5, -3, 3)
    data = np.stack(
        [generator.normal(3, 2, 1000), sides + generator.normal(size=1000) / 2], axis=1
    ).astype(np.float32)
    data = np.concatenate([data, generator.gamma(1.5, size=(1000, 1)).astype(np.float32)], axis=1)
    centres, log_scales = mixture_of_quantiles(jnp.asarray(data), 16)
    gaussianization = bijectors.MixtureGaussianization(jnp.zeros_like(centres), centres, log_scales)
    y = np.asarray(gaussianization.forward(data))
    for before, after in zip(data.T, y.T, strict=True):
        assert scipy.stats.kstest(after, "norm").statistic < 0.05
        assert 0.85 < after.std() < 1.1
        assert np.all(np.diff(after[np.argsort(before)]) >= 0)
    # Equal data get kernels of some width, and one kernel has the data's mean and deviation.
    _, log_scales = mixture_of_quantiles(jnp.ones((8, 1)), 4)
    assert np.all(np.isfinite(log_scales))
    centre, log_scale = mixture_of_quantiles(jnp.asarray(data), 1)
    np.testing.assert_allclose(centre[:, 0], data.mean(0), rtol=1e-4)
    np.testing.assert_allclose(np.exp(log_scale[:, 0]), data.std(0), rtol=1e-4)


def test_reflections_are_orthogonal():
    turn = bijectors.Householder(jax.random.normal(jax.random.key(0), (2, 4)))
    matrix = jax.vmap(turn.forward)(jnp.eye(4))
    np.testing.assert_allclose(matrix @ matrix.T, jnp.eye(4), atol=1e-6)
    np.testing.assert_allclose(matrix.T, householder_product(turn.reflections), atol=1e-6)


def test_wrong_parameters_raise():
    with pytest.raises(ValueError, match=r"one shape .* got \(3,\), \(2,\) and \(3,\)"):
        bijectors.MixtureGaussianization(jnp.zeros(3), jnp.zeros(2), jnp.zeros(3))
    with pytest.raises(ValueError, match=r"\[\*batch, reflection, dimension\].*got \(0, 3\)"):
        bijectors.Householder(jnp.zeros((0, 3)))
