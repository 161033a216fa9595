"""Inverses and determinants of small matrices, with their derivatives."""

import jax
import numpy as np
import pytest

from vaeflow.bijectors import linear

SIZES = [1, 2, 7, linear.LARGEST_SOLVED, linear.LARGEST_SOLVED + 1, 60]


def matrix(size: int) -> np.ndarray:
    """Rows in an order that needs pivoting, singular values between 0.5 and 2."""
    random = np.random.default_rng(size)
    left, right = np.linalg.qr(random.normal(size=(2, size, size)))[0]
    return (left @ (random.uniform(0.5, 2, (size, 1)) * right)).astype(np.float32)


@pytest.mark.parametrize("size", SIZES)
def test_inverse_determinant_and_their_derivatives(size):
    weight = matrix(size)
    cotangent = np.random.default_rng(0).normal(size=weight.shape).astype(np.float32)

    @jax.jit
    def run(weight, cotangent):
        inverted, pull_back = jax.vjp(linear.inverse, weight)
        value, gradient = jax.value_and_grad(linear.log_abs_determinant)(weight)
        alone = linear.log_abs_determinant(weight)
        return inverted, pull_back(cotangent)[0], value, gradient, alone

    inverted, pulled_back, value, gradient, alone = run(weight, cotangent)
    double = np.asarray(weight, np.float64)
    exact = np.linalg.inv(double)
    np.testing.assert_allclose(inverted, exact, atol=2e-5)
    np.testing.assert_allclose(pulled_back, -exact.T @ cotangent @ exact.T, atol=1e-3)
    np.testing.assert_allclose(value, np.linalg.slogdet(double)[1], atol=1e-4)
    np.testing.assert_allclose(alone, value, rtol=1e-6)
    np.testing.assert_allclose(gradient, exact.T, atol=2e-5)


def test_large_triangular_solves_are_split():
    text = str(jax.make_jaxpr(jax.grad(linear.log_abs_determinant))(matrix(60)))
    assert "triangular_solve" in text
    assert ":f32[15,15] = triangular_solve" in text
    assert ":f32[60,60] = triangular_solve" not in text
