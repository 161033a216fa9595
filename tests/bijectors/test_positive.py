"""Maps onto the positive numbers, and the logit: exact values, and values beyond the domain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import bijectors

MAPS = {"exp": bijectors.Exp(), "softplus": bijectors.Softplus()}


@pytest.mark.parametrize("value", [1e-20, 1e-6, 0.3, 5.0, 80.0])
def test_softplus_inverse_agrees_with_float64(value):
    x, log_det = bijectors.Softplus().inverse_and_log_det(jnp.array([value], jnp.float32))
    wide = np.float64(np.float32(value))
    expected = wide + np.log(-np.expm1(-wide))
    np.testing.assert_allclose(x, [expected], rtol=1e-6)
    np.testing.assert_allclose(log_det, np.log1p(np.exp(-expected)), rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("name", MAPS)
def test_values_outside_the_domain_are_clipped(name):
    y = jnp.array([[0.0, 1.0], [-3.0, 2.0], [-jnp.inf, 1.0], [1e-40, 1.0]])
    x, log_det = MAPS[name].inverse_and_log_det(y)
    np.testing.assert_allclose(x[:, 0], np.log(1e-30), rtol=1e-6)
    assert jnp.isfinite(log_det).all()
    noise = -(x**2) / 2
    assert (jnp.sum(noise, axis=-1) + log_det < -2000).all()


@pytest.mark.parametrize("direction", ["forward_and_log_det", "inverse_and_log_det"])
@pytest.mark.parametrize("name", MAPS)
def test_clipped_rows_leave_gradients_of_others_unchanged(name, direction):
    function = getattr(MAPS[name], direction)

    def gradient(values):
        return jax.grad(lambda v: sum(jnp.sum(out) for out in function(v)))(values)

    edges = jnp.array([0.0, -3.0, 1e-30, 1e6, -1e6])
    both = gradient(jnp.stack([edges, jnp.full(5, 0.7)]))
    assert jnp.isfinite(both).all()
    np.testing.assert_allclose(both[1], gradient(jnp.full((1, 5), 0.7))[0], rtol=1e-6)


@pytest.mark.parametrize("direction", ["forward_and_log_det", "inverse_and_log_det"])
@pytest.mark.parametrize("name", MAPS)
def test_nan_row_is_isolated(name, direction):
    value, log_det = getattr(MAPS[name], direction)(jnp.array([[1.0], [jnp.nan]]))
    assert jnp.isfinite(value[0]).all()
    assert jnp.isfinite(log_det[0])
    assert jnp.isnan(value[1]).all()
    assert jnp.isnan(log_det[1])


def test_logit_is_the_inverse_of_sigmoid():
    logit = bijectors.Logit(-1, 3)
    y, log_det = logit.forward_and_log_det(jnp.array([2.0]))
    np.testing.assert_allclose(y, [np.log(3)], rtol=1e-6)
    np.testing.assert_allclose(log_det, -np.log(4 * 0.75 * 0.25), rtol=1e-5)
    np.testing.assert_allclose(logit.inverse(y), [2.0], rtol=1e-6)
    with pytest.raises(ValueError, match="upper"):
        bijectors.Logit(1.0, 1.0)
