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


forward = jax.jit(lambda bijector, x: bijector.forward_and_log_det(x))
inverse = jax.jit(lambda bijector, y: bijector.inverse_and_log_det(y))


def slopes(function, x):
    return jax.jit(jax.vmap(jax.grad(function)))(np.asarray(x, np.float32))


def test_tails_are_scipys():
    z = np.array([-30, -5, -1, 0, 0.3, 2, 4.9, 5.1, 12, 30, 1e3], np.float32)
    expected = scipy.stats.norm.logsf(np.float64(z))
    tail, log_hazards, quantiles = jax.jit(
        lambda z: (log_tail(z), log_hazard(z), tail_quantile(log_tail(z)))
    )(z)
    np.testing.assert_allclose(tail, expected, rtol=1e-6, atol=1e-12)
    hazard = scipy.stats.norm.logpdf(np.float64(z)) - expected
    np.testing.assert_allclose(log_hazards, hazard, rtol=3e-6, atol=3e-6)
    np.testing.assert_allclose(np.asarray(quantiles)[3:], z[3:], rtol=1e-6, atol=1e-6)
    # Far out the hazard is z + 1 / z, and its logarithm has the slope 1 / z.
    far = np.array([1e3, 1e6])
    np.testing.assert_allclose(slopes(log_tail, far), -far, rtol=1e-5)
    np.testing.assert_allclose(slopes(log_hazard, far), 1 / far, rtol=1e-5)
    np.testing.assert_allclose(slopes(tail_quantile, -(far**2) / 2), -1 / far, rtol=1e-4)


def test_values_and_slopes_equal_the_formula():
    x = np.linspace(-4, 5, 19)
    weights = np.exp(WEIGHTS) / np.exp(WEIGHTS).sum()
    kernels = scipy.stats.norm(np.float64(CENTRES), np.exp(np.float64(LOG_SCALES)))
    expected = scipy.stats.norm.ppf(kernels.cdf(x[:, None]) @ weights)
    slope = kernels.pdf(x[:, None]) @ weights / scipy.stats.norm.pdf(expected)
    y, log_det = forward(mixture(), np.float32(x))
    np.testing.assert_allclose(y, expected, atol=2e-6)
    np.testing.assert_allclose(log_det, np.log(slope), atol=5e-6)


def test_derivatives_at_the_median_are_those_beside_it():
    """Both tails are equal there; by symmetry the log-determinant has no slope."""
    centres = np.array([-1.0, 1.0], np.float32)
    symmetric = bijectors.MixtureGaussianization(np.zeros(2), centres, np.zeros(2), 0)

    @jax.jit
    def derivatives(x):
        (y, log_det), both = jax.jvp(symmetric.forward_and_log_det, (x,), (jnp.ones_like(x),))
        back = jax.vmap(jax.grad(symmetric.inverse))(y)
        of_log_det = jax.vmap(jax.grad(symmetric.inverse_log_det_jacobian))(y)
        return jnp.exp(log_det), both, back, of_log_det

    slope, (dy, dlog_det), back, of_log_det = derivatives(np.array([-1e-3, 0, 1e-3], np.float32))
    np.testing.assert_allclose(dy, slope, rtol=1e-5)
    np.testing.assert_allclose(back, 1 / slope, rtol=1e-5)
    np.testing.assert_allclose(slope, slope[1], rtol=1e-4)
    np.testing.assert_allclose(dlog_det[1], 0, atol=1e-5)
    np.testing.assert_allclose(of_log_det[1], 0, atol=1e-5)


@pytest.mark.slow
def test_tails_have_the_slope_of_the_widest_kernel():
    x = np.array([-1e6, -1e3, 1e3, 1e6, 1e18], np.float32)
    widest = np.exp(-LOG_SCALES.max())
    y, log_det = forward(mixture(), x)
    np.testing.assert_allclose(y / x, widest, rtol=5e-3)
    np.testing.assert_allclose(log_det, np.log(widest), atol=1e-4)
    back, _ = inverse(mixture(), y)
    np.testing.assert_allclose(back, x, rtol=1e-5)


def test_one_kernel_is_affine():
    line = bijectors.MixtureGaussianization(jnp.zeros(1), jnp.ones(1), jnp.zeros(1), 0)
    x = np.array([-1e3, -3, 1, 1.5, 40], np.float32)
    y, log_det = forward(line, x)
    np.testing.assert_allclose(y, x - 1, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(log_det, 0, atol=3e-6)


def test_mixtures_at_quantiles_make_data_near_normal():
    generator = np.random.default_rng(0)
    sides = np.where(generator.random(1000) < 0.5, -3, 3)
    data = np.stack(
        [generator.normal(3, 2, 1000), sides + generator.normal(size=1000) / 2], axis=1
    ).astype(np.float32)
    data = np.concatenate([data, generator.gamma(1.5, size=(1000, 1)).astype(np.float32)], axis=1)

    @jax.jit
    def gaussianized(data):
        centres, log_scales = mixture_of_quantiles(data, 16)
        weights = jnp.zeros_like(centres)
        return bijectors.MixtureGaussianization(weights, centres, log_scales).forward(data)

    y = np.asarray(gaussianized(data))
    for before, after in zip(data.T, y.T, strict=True):
        assert scipy.stats.kstest(after, "norm").statistic < 0.05
        assert 0.85 < after.std() < 1.1
        assert np.all(np.diff(after[np.argsort(before)]) >= 0)
    # Equal data get kernels of some width, and one kernel has the data's mean and deviation.
    quantiles = jax.jit(mixture_of_quantiles, static_argnums=1)
    _, log_scales = quantiles(np.ones((8, 1), np.float32), 4)
    assert np.all(np.isfinite(log_scales))
    centre, log_scale = quantiles(data, 1)
    np.testing.assert_allclose(centre[:, 0], data.mean(0), rtol=1e-4)
    np.testing.assert_allclose(np.exp(log_scale[:, 0]), data.std(0), rtol=1e-4)


def test_a_mixture_inverts_in_every_unit():
    y = np.linspace(-5, 5, 11, dtype=np.float32)
    units = 2.0 ** np.array([[0], [-100], [-66], [100]])
    shape = (len(units), 1, len(WEIGHTS))
    scaled = bijectors.MixtureGaussianization(
        np.broadcast_to(WEIGHTS, shape),
        np.float32(units[:, :, None] * CENTRES),
        np.float32(np.log(units)[:, :, None] + LOG_SCALES),
        event_ndims=0,
    )
    x, log_det = inverse(scaled, np.broadcast_to(y, (len(units), len(y))))
    np.testing.assert_allclose(x[1:] / units[1:], np.broadcast_to(x[0], (3, 11)), rtol=1e-3)
    np.testing.assert_allclose(log_det - np.log(units), log_det[:1].repeat(4, 0), atol=1e-3)


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
