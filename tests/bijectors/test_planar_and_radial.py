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


@jax.jit
def both_directions(bijector, x):
    """Values and log-determinants of both directions at the same places."""
    return bijector.forward_and_log_det(x), bijector.inverse_and_log_det(x)


@jax.jit
def there_and_back(bijector, x):
    y, log_det = bijector.forward_and_log_det(x)
    return y, log_det, bijector.inverse(y)


def test_planar_has_the_constraint_of_the_paper():
    for product in (50.0, 0.7, -3.0):
        # w = (3, 4), so ||w||^2 = 25; u = (0, product / 4); x lies where w . x + b = 0.5.
        planar = bijectors.Planar(
            np.float32([3, 4]), np.float32([0, product / 4]), np.float32(-0.5)
        )
        allowed = softplus(product) - 1
        direction = np.array([0, product / 4]) + (allowed - product) * np.array([3, 4]) / 25
        y, log_det, _ = there_and_back(planar, np.float32([-1, 1]))
        expected = [-1, 1] + direction * np.tanh(0.5)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(log_det, np.log(1 + allowed / np.cosh(0.5) ** 2), rtol=1e-5)


def test_leaky_planar_bends_at_the_plane():
    # w . u = log(e^2 - 1), so 1 + w . u_hat = 2: twice the length above zero, 1.25 times below.
    planar = bijectors.Planar(
        np.ones(1, np.float32),
        np.log(np.exp(np.full(1, 2, np.float32)) - 1),
        np.float32(0),
        negative_slope=0.25,
    )
    x = np.float32([[3], [-4]])
    y, log_det, back = there_and_back(planar, x)
    np.testing.assert_allclose(y, [[6.0], [-5.0]], rtol=1e-6)
    np.testing.assert_allclose(log_det, np.log([2.0, 1.25]), rtol=1e-5)
    np.testing.assert_allclose(back, x, rtol=1e-6)


def test_planar_stays_invertible_for_every_scale():
    @jax.jit
    def run(scales):
        planar = bijectors.Planar(jnp.full((241, 1), 1.5), scales, jnp.zeros(241))
        return *planar.constrained(), planar.forward_log_det_jacobian(jnp.zeros((241, 1)))

    scales = np.linspace(-60, 60, 241, dtype=np.float32)[:, None]
    direction, stretch, log_det = jax.device_get(run(scales))
    np.testing.assert_allclose(1.5 * direction[:, 0], stretch - 1, atol=1e-4)
    assert (stretch - 1 >= -1).all()
    assert (stretch > 0).all()
    assert np.isfinite(log_det).all()


def test_planar_is_a_shift_where_the_weight_is_zero():
    def outputs(weight):
        planar = bijectors.Planar(weight, jnp.array([1.0, -2.0]), jnp.array(0.3))
        return both_directions(planar, jnp.array([5.0, 6.0]))

    run = jax.jit(lambda weight: (outputs(weight), jax.jacrev(outputs)(weight)))
    x, shift = np.array([5, 6]), np.tanh(0.3) * np.array([1, -2])
    for size in (0.0, 1e-20, 1e-7):
        (forward, inverse), jacobians = jax.device_get(run(np.full(2, size, np.float32)))
        np.testing.assert_allclose(forward[0], x + shift, atol=1e-5)
        np.testing.assert_allclose(inverse[0], x - shift, atol=1e-5)
        np.testing.assert_allclose([forward[1], inverse[1]], 0, atol=1e-6)
        jacobians = jax.tree.leaves(jacobians)
        assert all(np.isfinite(jacobian).all() for jacobian in jacobians)
        # d log-det / dw = h'(b) u, forward.
        slope = (1 - np.tanh(0.3) ** 2) * np.array([1, -2])
        np.testing.assert_allclose(jacobians[1], slope, rtol=1e-4)


def test_radial_by_hand():
    # alpha = 1 and gamma = alpha + beta_hat = 3; x is at distance 5 of the centre (1, 1).
    raw = np.log(np.exp(np.float32([1, 3])) - 1)
    radial = bijectors.Radial(np.ones(2, np.float32), *raw)
    y, log_det, back = there_and_back(radial, np.float32([4, 5]))
    np.testing.assert_allclose(y, 1 + np.array([3, 4]) * 8 / 6, rtol=1e-6)
    np.testing.assert_allclose(log_det, np.log(8 / 6) + np.log(8 / 6 - 2 * 5 / 36), rtol=1e-5)
    np.testing.assert_allclose(back, [4, 5], rtol=1e-6)


def test_radial_is_smooth_at_its_centre():
    center = np.float32([1, -2])
    radial = bijectors.Radial(center, np.float32(0.5), np.float32(-1))

    @jax.jit
    def run(x):
        return both_directions(radial, x), jax.jacrev(both_directions, 1)(radial, x)

    stretch = softplus(-1.0) / softplus(0.5)
    for factor, (value, log_det), (jacobian, log_det_gradient) in zip(
        (stretch, 1 / stretch), *jax.device_get(run(center)), strict=True
    ):
        np.testing.assert_array_equal(value, center)
        np.testing.assert_allclose(log_det, 2 * np.log(factor), rtol=1e-5)
        np.testing.assert_allclose(jacobian, factor * np.eye(2), rtol=1e-5)
        assert np.isfinite(log_det_gradient).all()


def test_radial_inverts_at_every_distance():
    # Far out, the formula for the root that suits small distances loses every digit.
    x = np.float32([[1e-6], [1], [1e4], [1e8]])
    for raw_beta in (-8, 8):
        radial = bijectors.Radial(np.zeros(1, np.float32), np.float32(1), np.float32(raw_beta))
        np.testing.assert_allclose(there_and_back(radial, x)[2], x, rtol=2e-5)


def test_radial_distances_neither_overflow_nor_vanish():
    radial = bijectors.Radial(np.zeros(2, np.float32), np.float32(0.3), np.float32(1.7))
    directions = np.float32([[3, 4], [-1, 0], [1, 1]])
    for size in (1e-30, 1e30):
        x = np.float32(size) * directions
        y, log_det, back = there_and_back(radial, x)
        # Near its centre the map is a scaling, and far out the identity.
        factor = softplus(1.7) / softplus(0.3) if size < 1 else 1.0
        np.testing.assert_allclose(y, factor * x, rtol=1e-5)
        np.testing.assert_allclose(log_det, 2 * np.log(factor), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(back, x, rtol=1e-5)


@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("name", MAKERS)
def test_density_integrates_to_one(name, dimension):
    @jax.jit
    def run(key, grid):
        return MAKERS[name](dimension)(key).inverse_and_log_det(grid)

    points = {1: 4001, 2: 501}[dimension]
    line = np.linspace(-10, 10, points, dtype=np.float32)
    grid = np.stack(np.meshgrid(*[line] * dimension), axis=-1).reshape(-1, dimension)
    noise, log_det = jax.device_get(run(jax.random.key(3), grid))
    log_density = np.sum(-(noise**2) / 2 - np.log(2 * np.pi) / 2, axis=-1) + log_det
    integral = np.sum(np.exp(log_density)) * (20 / (points - 1)) ** dimension
    np.testing.assert_allclose(integral, 1, atol=1e-3)


@pytest.mark.parametrize("name", MAKERS)
def test_nan_row_is_isolated(name):
    run = jax.jit(lambda key, x: both_directions(MAKERS[name](2)(key), x))
    x = np.float32([[1, 2], [np.nan, 0], [-3, 0.5]])
    without = x.copy()
    without[1] = 0
    results = jax.device_get((run(jax.random.key(0), x), run(jax.random.key(0), without)))
    for (value, log_det), (expected, expected_log_det) in zip(*results, strict=True):
        assert np.isnan(value[1]).any()
        assert np.isnan(log_det[1])
        assert not np.isnan(expected).any()
        np.testing.assert_allclose(value[::2], expected[::2], rtol=1e-5)
        np.testing.assert_allclose(log_det[::2], expected_log_det[::2], rtol=1e-5, atol=1e-6)


ERRORS = {
    "weight, scale and bias": lambda: bijectors.Planar(np.ones(2), np.ones(3), np.ones(())),
    "negative_slope": lambda: bijectors.Planar(np.ones(2), np.ones(2), np.ones(()), 1.0),
    "center, raw_alpha": lambda: bijectors.Radial(np.ones(2), np.ones(2), np.ones(())),
    r"batch shape \(3,\).*\(2, 1\)": lambda: bijectors.Radial(
        np.ones((3, 1)), np.ones(3), np.ones(3)
    ).forward(np.ones((2, 1))),
    r"batch shape \(3,\).*input of shape \(1, 1\)": lambda: bijectors.Radial(
        np.ones((3, 1)), np.ones(3), np.ones(3)
    ).forward(np.ones((1, 1))),
}


@pytest.mark.parametrize("message", ERRORS)
def test_wrong_arguments_raise(message):
    with pytest.raises(ValueError, match=message):
        ERRORS[message]()
