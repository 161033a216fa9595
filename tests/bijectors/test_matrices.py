"""Inverses and determinants of small matrices, with their derivatives."""

import jax
import numpy as np
import pytest

from vaeflow.bijectors import linear

SIZES = [1, 2, 7, linear.LARGEST_SOLVED, linear.LARGEST_SOLVED + 1, 60]


def matrix(size: int) -> jax.Array:
    """Rows in an order that needs pivoting, singular values between 0.5 and 2."""
    keys = jax.random.split(jax.random.key(size), 3)
    left, right = (jax.random.orthogonal(key, size) for key in keys[:2])
    return left @ (jax.random.uniform(keys[2], (size, 1), minval=0.5, maxval=2.0) * right)


@pytest.mark.parametrize("size", SIZES)
def test_inverse_and_its_derivative(size):
    weight = matrix(size)
    exact = np.linalg.inv(np.asarray(weight, np.float64))
    inverted, pull_back = jax.vjp(linear.inverse, weight)
    np.testing.assert_allclose(inverted, exact, atol=2e-5)
    cotangent = jax.random.normal(jax.random.key(0), weight.shape)
    expected = -exact.T @ np.asarray(cotangent) @ exact.T
    np.testing.assert_allclose(pull_back(cotangent)[0], expected, atol=1e-3)


@pytest.mark.parametrize("size", SIZES)
def test_determinant_and_its_derivative(size):
    weight = matrix(size)
    double = np.asarray(weight, np.float64)
    value, gradient = jax.value_and_grad(linear.log_abs_determinant)(weight)
    np.testing.assert_allclose(value, np.linalg.slogdet(double)[1], atol=1e-4)
    np.testing.assert_allclose(linear.log_abs_determinant(weight), value, rtol=1e-6)
    np.testing.assert_allclose(gradient, np.linalg.inv(double).T, atol=2e-5)


def test_large_triangular_solves_are_split():
    text = str(jax.make_jaxpr(jax.grad(linear.log_abs_determinant))(matrix(60)))
    assert "triangular_solve" in text
    assert ":f32[15,15] = triangular_solve" in text
    assert ":f32[60,60] = triangular_solve" not in text
