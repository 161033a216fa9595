"""Importance weights: shares, estimates and edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import metrics


def test_known_weights():
    found = metrics.importance_diagnostics(jnp.log(jnp.array([1.0, 2.0, 3.0, 2.0])))
    np.testing.assert_allclose(found.log_normalizer, np.log(2), rtol=1e-6)
    np.testing.assert_allclose(found.effective_sample_size, 64 / (4 * 18), rtol=1e-6)
    np.testing.assert_allclose(found.largest_weight, 3 / 8, rtol=1e-6)


@pytest.mark.parametrize("offset", [-1e4, 0, 1e4])
def test_any_scale_of_weights(offset):
    found = metrics.importance_diagnostics(jnp.full(5, offset, jnp.float32))
    np.testing.assert_allclose(found, [offset, 1, 1 / 5], rtol=1e-6, atol=1e-6)


def test_zero_weights_count_as_samples():
    found = metrics.importance_diagnostics(jnp.array([0.0, -jnp.inf, -jnp.inf, -jnp.inf]))
    np.testing.assert_allclose(found, [-np.log(4), 1 / 4, 1], rtol=1e-6)
    found = metrics.importance_diagnostics(jnp.full(3, -jnp.inf))
    np.testing.assert_array_equal(found, [-np.inf, 0, 0])


def test_nan_is_nan():
    assert np.isnan(metrics.importance_diagnostics(jnp.array([0.0, jnp.nan]))).all()


def test_it_compiles_and_keeps_float32():
    found = jax.jit(metrics.importance_diagnostics)(jnp.zeros(3, jnp.bfloat16))
    assert all(value.dtype == jnp.float32 and value.shape == () for value in found)


@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"log_weights must have shape \[sample\], got"):
        metrics.importance_diagnostics(jnp.zeros(shape))
