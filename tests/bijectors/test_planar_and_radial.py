"""Planar and radial maps: values by hand, constraints, densities, NaN inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import vector_makers
from vaeflow import bijectors

MAKERS = {
    "planar": vector_makers.planar,
    "leaky": lambda dimension: vector_makers.planar(dimension, 0.1),
    "radial": vector_makers.radial,
}


def softplus(value):
    return np.log1p(np.exp(value))


@pytest.mark.parametrize("product", [50.0, 0.7, -3.0])
def test_planar_has_the_constraint_of_the_paper(product):
    # w = (3, 4), so ||w||^2 = 25; u = (0, product / 4); x lies in the plane where w . x + b = 0.5.
    planar = bijectors.Planar(jnp.array([3.0, 4.0]), jnp.array([0.0, product / 4]), jnp.array(-0.5))
    allowed = softplus(product) - 1
    direction = np.array([0, product / 4]) + (allowed - product) * np.array([3, 4]) / 25
    y, log_det = planar.forward_and_log_det(jnp.array([-1.0, 1.0]))
    np.testing.assert_allclose(y, [-1, 1] + direction * np.tanh(0.5), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(log_det, np.log(1 + allowed / np.cosh(0.5) ** 2), rtol=1e-5)


def test_leaky_planar_bends_at_the_plane():
    # w . u = log(e^2 - 1), so 1 + w . u_hat = 2: twice the length above zero, 1.25 times below.
    planar = bijectors.Planar(
        jnp.ones(1), jnp.log(jnp.exp(jnp.full(1, 2.0)) - 1), jnp.array(0.0), negative_slope=0.25
    )
    y, log_det = planar.forward_and_log_det(jnp.array([[3.0], [-4.0]]))
    np.testing.assert_allclose(y, [[6.0], [-5.0]], rtol=1e-6)
    np.testing.assert_allclose(log_det, np.log([2.0, 1.25]), rtol=1e-5)
    np.testing.assert_allclose(planar.inverse(y), [[3.0], [-4.0]], rtol=1e-6)


def test_planar_stays_invertible_for_every_scale():
    scales = jnp.linspace(-60, 60, 241)[:, None]
    planar = bijectors.Planar(jnp.full((241, 1), 1.5), scales, jnp.zeros(241))
    direction, stretch = planar.constrained()
    np.testing.assert_allclose(1.5 * direction[:, 0], stretch - 1, atol=1e-4)
    assert (stretch - 1 >= -1).all()
    assert (stretch > 0).all()
    assert jnp.isfinite(planar.forward_log_det_jacobian(jnp.zeros((241, 1)))).all()


@pytest.mark.parametrize("size", [0.0, 1e-20, 1e-7])
def test_planar_is_a_shift_where_the_weight_is_zero(size):
    def outputs(weight):
        planar = bijectors.Planar(weight, jnp.array([1.0, -2.0]), jnp.array(0.3))
        forward = planar.forward_and_log_det(jnp.array([5.0, 6.0]))
        return forward, planar.inverse_and_log_det(jnp.array([5.0, 6.0]))

    weight = jnp.full(2, size)
    forward, inverse = outputs(weight)
    x, shift = np.array([5, 6]), np.tanh(0.3) * np.array([1, -2])
    np.testing.assert_allclose(forward[0], x + shift, atol=1e-5)
    np.testing.assert_allclose(inverse[0], x - shift, atol=1e-5)
    np.testing.assert_allclose([forward[1], inverse[1]], 0, atol=1e-6)
    jacobians = jax.tree.leaves(jax.jacrev(outputs)(weight))
    assert all(jnp.isfinite(jacobian).all() for jacobian in jacobians)
    # d log-det / dw = h'(b) u, forward.
    np.testing.assert_allclose(jacobians[1], (1 - np.tanh(0.3) ** 2) * np.array([1, -2]), rtol=1e-4)


def test_radial_by_hand():
    # alpha = 1 and gamma = alpha + beta_hat = 3; x is at distance 5 of the centre (1, 1).
    raw = jnp.log(jnp.exp(jnp.array([1.0, 3.0])) - 1)
    radial = bijectors.Radial(jnp.ones(2), *raw)
    y, log_det = radial.forward_and_log_det(jnp.array([4.0, 5.0]))
    np.testing.assert_allclose(y, 1 + np.array([3, 4]) * 8 / 6, rtol=1e-6)
    np.testing.assert_allclose(log_det, np.log(8 / 6) + np.log(8 / 6 - 2 * 5 / 36), rtol=1e-5)
    np.testing.assert_allclose(radial.inverse(y), [4, 5], rtol=1e-6)


@pytest.mark.parametrize("direction", ["forward_and_log_det", "inverse_and_log_det"])
def test_radial_is_smooth_at_its_centre(direction):
    radial = bijectors.Radial(jnp.array([1.0, -2.0]), jnp.array(0.5), jnp.array(-1.0))
    function = getattr(radial, direction)
    value, log_det = function(radial.center)
    np.testing.assert_array_equal(value, radial.center)
    factor = softplus(-1.0) / softplus(0.5)
    factor = factor if direction.startswith("forward") else 1 / factor
    np.testing.assert_allclose(log_det, 2 * np.log(factor), rtol=1e-5)
    jacobian, log_det_gradient = jax.jacrev(function)(radial.center)
    np.testing.assert_allclose(jacobian, factor * np.eye(2), rtol=1e-5)
    assert jnp.isfinite(log_det_gradient).all()


@pytest.mark.parametrize("distance", [1e-6, 1.0, 1e4, 1e8])
def test_radial_inverts_at_every_distance(distance):
    # Far out, the formula for the root that suits small distances loses every digit.
    x = jnp.array([[distance]])
    for raw_beta in (-8.0, 8.0):
        radial = bijectors.Radial(jnp.zeros(1), jnp.array(1.0), jnp.array(raw_beta))
        np.testing.assert_allclose(radial.inverse(radial.forward(x)), x, rtol=2e-5)


@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("name", MAKERS)
def test_density_integrates_to_one(name, dimension):
    bijector = MAKERS[name](dimension)(jax.random.key(3))
    points = {1: 4001, 2: 501}[dimension]
    line = jnp.linspace(-10, 10, points)
    grid = jnp.stack(jnp.meshgrid(*[line] * dimension), axis=-1).reshape(-1, dimension)
    noise, log_det = jax.jit(bijector.inverse_and_log_det)(grid)
    log_density = jnp.sum(-(noise**2) / 2 - np.log(2 * np.pi) / 2, axis=-1) + log_det
    integral = jnp.sum(jnp.exp(log_density)) * (20 / (points - 1)) ** dimension
    np.testing.assert_allclose(integral, 1, atol=1e-3)


@pytest.mark.parametrize("direction", ["forward_and_log_det", "inverse_and_log_det"])
@pytest.mark.parametrize("name", MAKERS)
def test_nan_row_is_isolated(name, direction):
    function = getattr(MAKERS[name](2)(jax.random.key(0)), direction)
    x = jnp.array([[1.0, 2.0], [jnp.nan, 0.0], [-3.0, 0.5]])
    value, log_det = function(x)
    expected, expected_log_det = function(x[::2])
    assert jnp.isnan(value[1]).any()
    assert jnp.isnan(log_det[1])
    np.testing.assert_allclose(value[::2], expected, rtol=1e-5)
    np.testing.assert_allclose(log_det[::2], expected_log_det, rtol=1e-5, atol=1e-6)


ERRORS = {
    "weight, scale and bias": lambda: bijectors.Planar(jnp.ones(2), jnp.ones(3), jnp.ones(())),
    "negative_slope": lambda: bijectors.Planar(jnp.ones(2), jnp.ones(2), jnp.ones(()), 1.0),
    "center, raw_alpha": lambda: bijectors.Radial(jnp.ones(2), jnp.ones(2), jnp.ones(())),
    r"batch shape \(3,\).*\(2, 1\)": lambda: bijectors.Radial(
        jnp.ones((3, 1)), jnp.ones(3), jnp.ones(3)
    ).forward(jnp.ones((2, 1))),
    r"batch shape \(3,\).*input of shape \(1, 1\)": lambda: bijectors.Radial(
        jnp.ones((3, 1)), jnp.ones(3), jnp.ones(3)
    ).forward(jnp.ones((1, 1))),
}


@pytest.mark.parametrize("message", ERRORS)
def test_wrong_arguments_raise(message):
    with pytest.raises(ValueError, match=message):
        ERRORS[message]()
