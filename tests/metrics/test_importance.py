"""Importance weights: shares, estimates and edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vaeflow import estimators

importance = jax.jit(estimators.importance_diagnostics)
target = jax.jit(estimators.target_diagnostics)


def test_known_weights():
    # Not compiled as a whole.
    result = estimators.importance_diagnostics(np.log(np.float32([1.0, 2.0, 3.0, 2.0])))
    np.testing.assert_allclose(result.log_normalizer, np.log(2), rtol=1e-6)
    np.testing.assert_allclose(result.effective_sample_size, 64 / (4 * 18), rtol=1e-6)
    np.testing.assert_allclose(result.largest_weight, 3 / 8, rtol=1e-6)


@pytest.mark.parametrize("offset", [-1e4, 0, 1e4])
def test_any_scale_of_weights(offset):
    result = importance(np.full(4, offset, np.float32))
    np.testing.assert_allclose(result, [offset, 1, 1 / 4], rtol=1e-6, atol=1e-6)


def test_zero_weights_count_as_samples():
    result = importance(np.float32([0.0, -np.inf, -np.inf, -np.inf]))
    np.testing.assert_allclose(result, [-np.log(4), 1 / 4, 1], rtol=1e-6)
    result = importance(np.full(4, -np.inf, np.float32))
    np.testing.assert_array_equal(result, [-np.inf, 0, 0])


def test_nan_is_nan():
    assert np.isnan(importance(np.float32([0.0, np.nan, 0.0, 0.0]))).all()


def test_it_compiles_and_keeps_float32():
    result = importance(np.zeros(3, jnp.bfloat16))
    assert all(value.dtype == jnp.float32 and value.shape == () for value in result)


@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_other_shapes_raise(shape):
    with pytest.raises(ValueError, match=r"log_weights must have shape \[sample\], got"):
        estimators.importance_diagnostics(np.zeros(shape, np.float32))


def test_known_weights_at_samples_of_the_target():
    result = target(np.log(np.float32([1.0, 2.0, 4.0, 4.0])))
    np.testing.assert_allclose(result.log_normalizer, np.log(4 / 2), rtol=1e-6)
    np.testing.assert_allclose(result.effective_sample_size, 1 / (11 / 4 * 2 / 4), rtol=1e-6)


@pytest.mark.parametrize("offset", [-1e4, 0, 1e4])
def test_any_scale_of_weights_at_samples_of_the_target(offset):
    result = target(np.full(4, offset, np.float32))
    np.testing.assert_allclose(result, [offset, 1], rtol=1e-6, atol=1e-6)


def test_a_sample_that_is_missed_leaves_nothing():
    result = target(np.float32([0.0, 0.0, 0.0, np.inf]))
    np.testing.assert_allclose(result, [np.log(4 / 3), 0], rtol=1e-6)
    with pytest.raises(ValueError, match=r"log_weights must have shape \[sample\], got \(2, 3\)"):
        estimators.target_diagnostics(np.zeros((2, 3), np.float32))


def test_both_sides_agree_on_two_gaussians():
    # For p = N(0, 1) and q = N(0, s^2): 1 / ESS = E_p[p / q] = s^2 / sqrt(2 s^2 - 1).
    scale, log_z = 1.2, 3.0
    noise = np.random.default_rng(0).normal(size=400_000)

    def log_weights(x):
        log_q = scipy.stats.norm.logpdf(x, scale=scale)
        return np.float32(scipy.stats.norm.logpdf(x) + log_z - log_q)

    share = np.sqrt(2 * scale**2 - 1) / scale**2
    for result in (importance(log_weights(scale * noise)), target(log_weights(noise))):
        np.testing.assert_allclose(result.effective_sample_size, share, atol=0.003)
        np.testing.assert_allclose(result.log_normalizer, log_z, atol=0.003)
