"""Numerical inverses: convergence, gradients by the implicit function theorem, NaN on failure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import bijectors
from vaeflow.bijectors.numerical import solve_monotone


def cubic(scale, x):
    return scale * x**3 + x


def falling(scale, x):
    return -scale * x - jnp.sinh(jnp.clip(x, -30, 30))


def flat_then_steep(scale, x):
    return jnp.where(x > 0, scale * 1e4 * x, 1e-4 * x)


@pytest.mark.parametrize("function", [cubic, falling, flat_then_steep])
def test_solves_to_the_stated_tolerance(function):
    target = jnp.array([0.0, 1e-8, -3.0, 7.5, -1e3, 2e4])
    x = jax.jit(lambda t: solve_monotone(function, 2.0, t))(target)
    residual = jnp.abs(function(2.0, x) - target)
    assert (residual <= 1e-6 * (1 + jnp.abs(target)) + jnp.spacing(jnp.abs(target))).all()


def test_gradients_are_those_of_the_inverse_function():
    target = jnp.array([0.3, -4.0, 50.0])

    def solution(scale, target):
        return jnp.sum(jnp.sin(solve_monotone(cubic, scale, target)))

    dscale, dtarget = jax.grad(solution, (0, 1))(jnp.float32(1.5), target)
    x = solve_monotone(cubic, 1.5, target)
    slope = 4.5 * x**2 + 1
    np.testing.assert_allclose(dtarget, jnp.cos(x) / slope, rtol=1e-4)
    np.testing.assert_allclose(dscale, jnp.sum(-jnp.cos(x) * x**3 / slope), rtol=1e-4)


@pytest.mark.parametrize("target", [2.0, -1.5])
def test_a_value_out_of_reach_is_nan(target):
    reach = solve_monotone(lambda _, x: jnp.tanh(x), None, jnp.array([0.5, target]))
    assert jnp.isfinite(reach[0])
    assert jnp.isnan(reach[1])


def test_inverse_of_a_bijector_has_its_log_det():
    affine = bijectors.ElementwiseAffine(jnp.array([1.0, -2.0]), jnp.array([0.5, -1.0]))
    y = jnp.array([[3.0, 4.0], [-100.0, 0.0]])
    x, log_det = bijectors.NumericalInverse(affine).inverse_and_log_det(y)
    expected, expected_log_det = affine.inverse_and_log_det(y)
    np.testing.assert_allclose(x, expected, rtol=1e-5)
    np.testing.assert_allclose(log_det, expected_log_det, rtol=1e-6)


def test_changing_rank_raises():
    with pytest.raises(ValueError, match="rank 1 to rank 2"):
        bijectors.NumericalInverse(bijectors.Reshape((4,), (2, 2)))


def test_searches_of_single_numbers_never_fail():
    """Each search is a loop that runs alone, where rounding decides when it ends."""
    random = np.random.default_rng(0)
    increments = np.float32(random.normal(size=(1000, 1, 5)))
    targets = np.float32(random.normal(size=(1000, 1)))

    @jax.jit
    @jax.vmap
    def inverse(increments, y):
        return bijectors.BernsteinPolynomial(increments).inverse(y)

    @jax.jit
    @jax.vmap
    def forward(increments, x):
        return bijectors.BernsteinPolynomial(increments).forward(x)

    found = [inverse(increments[i : i + 1], targets[i : i + 1]) for i in range(len(targets))]
    again = forward(increments, np.concatenate(found))
    np.testing.assert_allclose(again, targets, atol=1e-5)
