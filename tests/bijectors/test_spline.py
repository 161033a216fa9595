"""Rational-quadratic splines against values by hand, distrax, and their definition."""

import functools

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from vaeflow import bijectors

BOUND = 2.0
SIZE = 4001
"""The number of points at which every spline is evaluated, so that it compiles once a kind."""


def spline(seed=0, bins=5, circular=False, scale=1.5):
    random = np.random.default_rng(seed)
    sizes = (bins, bins, bins if circular else bins - 1)
    parameters = [np.float32(scale * random.normal(size=size)) for size in sizes]
    return bijectors.RationalQuadraticSpline(*parameters, BOUND, 0, circular)


@jax.jit
def in_both_directions(bijector, x):
    return bijector.forward_and_log_det(x), bijector.inverse_and_log_det(x)


def evaluate(bijector, x):
    """Values and log-determinants, forward and inverse, at no more than `SIZE` points."""
    padded = np.pad(np.float32(x), (0, SIZE - len(x)))
    found = jax.device_get(in_both_directions(bijector, padded))
    return jax.tree.map(lambda leaf: leaf[: len(x)], found)


def size_logits(shares):
    """Logits of bins that take these fractions of the interval."""
    shares = np.asarray(shares)
    return np.log((shares - 1e-3) / (1 - 1e-3 * len(shares)))


def derivative_parameter(slope):
    """The parameter of a slope: the inverse of 1e-3 + softplus(p + log(exp(0.999) - 1))."""
    return np.log(np.expm1(slope - 1e-3)) - np.log(np.expm1(0.999))


def test_two_bins_by_hand():
    # Knots (-2, -2), (1, 0), (2, 2) with slopes 1, 2, 1.
    bijector = bijectors.RationalQuadraticSpline(
        size_logits([0.75, 0.25]),
        size_logits([0.5, 0.5]),
        np.array([derivative_parameter(2.0)]),
        BOUND,
        0,
    )
    # x = -1/2: t = 1/2, s = 2/3; y = -2 + 2 (1/6 + 1/4) / (2/3 + (3 - 4/3) / 4) = -16/13,
    # dy/dx = s^2 (2/4 + 2 s/4 + 1/4) / (13/12)^2 = (4/9) (13/12) (12/13)^2 = 16/39.
    # x = 5/4: t = 1/4, s = 2; y = 2 (1/8 + 3/8) / (2 - 3/16) = 16/29,
    # dy/dx = 4 (1/16 + 3/4 + 9/8) / (29/16)^2 = 4 (31/16) (16/29)^2 = 1984/841.
    x = np.array([-0.5, 1.25, 1.0, -2.0, 2.0, 3.0])
    expected = np.array([-16 / 13, 16 / 29, 0.0, -2.0, 2.0, 3.0])
    slopes = np.array([16 / 39, 1984 / 841, 2.0, 1.0, 1.0, 1.0])
    (y, log_det), _ = evaluate(bijector, x)
    np.testing.assert_allclose(y, expected, atol=2e-6)
    np.testing.assert_allclose(log_det, np.log(slopes), atol=2e-6)
    _, (back, log_det) = evaluate(bijector, expected)
    np.testing.assert_allclose(back, x, atol=2e-6)
    np.testing.assert_allclose(log_det, -np.log(slopes), atol=1e-5)


@functools.partial(jax.jit, static_argnums=1)
def of_distrax(parameters, boundary, x):
    theirs = distrax.RationalQuadraticSpline(
        parameters,
        -BOUND,
        BOUND,
        boundary,
        min_bin_size=1e-3 * 2 * BOUND,
        min_knot_slope=1e-3,
    )
    return theirs.forward_and_log_det(x), theirs.inverse_and_log_det(x)


@pytest.mark.parametrize("circular", [False, True])
def test_spline_agrees_with_distrax_at_equal_knots(circular):
    ours = spline(3, circular=circular)
    widths, heights, free = map(np.asarray, (ours.widths, ours.heights, ours.derivatives))
    free = np.append(free, free[0]) if circular else np.pad(free, 1)
    parameters = np.concatenate([widths, heights, free])
    x = np.linspace(-1.99, 1.99, 101)
    theirs = of_distrax(parameters, "circular" if circular else "identity", np.float32(x))
    for got, expected in zip(evaluate(ours, x), theirs, strict=True):
        np.testing.assert_allclose(got[0], expected[0], atol=2e-5)
        np.testing.assert_allclose(got[1], expected[1], atol=2e-4)


@pytest.mark.parametrize("circular", [False, True])
def test_spline_at_zero_is_the_identity(circular):
    x = np.linspace(-5, 5, 1001)
    for value, log_det in evaluate(spline(scale=0.0, circular=circular), x):
        np.testing.assert_allclose(value, x, atol=2e-6)
        np.testing.assert_allclose(log_det, 0, atol=2e-6)


def test_spline_increases_and_is_the_identity_outside():
    for seed in range(5):
        x = np.linspace(-3, 3, 3001, dtype=np.float32)
        (y, _), _ = evaluate(spline(seed), x)
        assert (np.diff(y) > 0).all()
        outside = np.abs(x) >= BOUND
        np.testing.assert_array_equal(y[outside], x[outside])


@pytest.mark.parametrize("circular", [False, True])
def test_spline_and_its_slope_are_continuous_at_knots_and_at_the_bound(circular):
    bijector = spline(1, circular=circular, scale=0.5)
    shares = 1e-3 + (1 - 5e-3) * softmax(np.asarray(bijector.widths))
    knots = np.append(2 * BOUND * np.cumsum(shares) - BOUND, -BOUND)
    (left, left_log_slope), _ = evaluate(bijector, knots - 1e-5)
    (right, right_log_slope), _ = evaluate(bijector, knots + 1e-5)
    np.testing.assert_allclose(left, right, atol=2e-4)
    np.testing.assert_allclose(left_log_slope, right_log_slope, atol=3e-3)


def test_circular_spline_is_periodic_with_one_derivative_at_both_ends():
    bijector = spline(2, circular=True)
    x = np.linspace(-1.9, 1.9, 21)
    (y, log_det), _ = evaluate(bijector, x)
    (around, around_log_det), _ = evaluate(bijector, x - 6 * BOUND)
    np.testing.assert_allclose(around, y - 6 * BOUND, atol=1e-5)
    np.testing.assert_allclose(around_log_det, log_det, atol=1e-4)
    (_, ends), _ = evaluate(bijector, np.array([-BOUND, BOUND]))
    raw = np.asarray(bijector.derivatives)[0]
    slope = 1e-3 + np.log1p(np.exp(raw) * np.expm1(0.999))
    np.testing.assert_allclose(ends, np.log(slope), atol=1e-4)


def test_density_integrates_to_one_with_mass_outside_the_interval():
    x = np.linspace(-10, 10, SIZE)
    _, (noise, log_det) = evaluate(spline(4), x)
    density = np.exp(-0.5 * (noise / 1.5) ** 2 + log_det) / (1.5 * np.sqrt(2 * np.pi))
    outside = np.where(np.abs(x) > BOUND, density, 0.0)
    assert 0.1 < np.trapezoid(outside, x) < 0.5
    assert np.trapezoid(density, x) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("circular", [False, True])
def test_gradients_are_finite_at_knots_at_the_bound_and_far_beyond(circular):
    def total(parameters, x, direction):
        bijector = bijectors.RationalQuadraticSpline(*parameters, BOUND, 0, circular)
        value, log_det = getattr(bijector, direction)(x)
        return jnp.sum(jnp.sin(value) + log_det)

    @jax.jit
    def gradients(parameters, x):
        both = ("forward_and_log_det", "inverse_and_log_det")
        return [jax.value_and_grad(total, argnums=(0, 1))(parameters, x, name) for name in both]

    # Equal bins at raw slopes of every size, so that the knots are exact.
    slopes = np.array([-1e6, 0.0, 1e30, 3.0], np.float32)[: 4 if circular else 3]
    parameters = (np.zeros(4, np.float32), np.zeros(4, np.float32), slopes)
    below, above = np.nextafter(np.float32(2), [np.float32(0), np.float32(9)])
    x = np.float32([-2.0, -1, 0, 1, 2, below, above, -below, -above, 1e-30, 1e30, -1e30])
    for leaf in jax.tree.leaves(jax.device_get(gradients(parameters, x))):
        assert np.isfinite(leaf).all()


@pytest.mark.parametrize("circular", [False, True])
def test_nan_element_is_isolated(circular):
    x = np.array([0.3, np.nan, 5.0])
    for values in jax.tree.leaves(evaluate(spline(circular=circular), x)):
        np.testing.assert_array_equal(np.isnan(values), [False, True, False])


def test_inverse_recovers_steep_and_flat_splines():
    logits = np.float32([9.0, -9.0, 0.0, 5.0])
    slopes = np.float32([-30.0, 30.0, -30.0])
    bijector = bijectors.RationalQuadraticSpline(logits, -logits, slopes, BOUND, 0)
    y = np.linspace(-2.5, 2.5, 2001, dtype=np.float32)
    _, (x, log_det) = evaluate(bijector, y)
    assert np.isfinite(log_det).all()
    assert (np.diff(x) >= 0).all()
    # Where the spline is steep one unit in the last place of x is worth this much in y.
    (again, _), _ = evaluate(bijector, x)
    assert (np.abs(again - y) <= 1e-6 + 1e-6 * np.exp(-log_det)).all()


ERRORS = {
    "bound must be positive": ((3,), (3,), (2,), {"bound": 0.0}),
    r"shapes \(3,\) and \(2,\).*got \(3,\) and \(3,\)": ((3,), (3,), (3,), {}),
    r"shapes \(3,\) and \(3,\).*got \(3,\) and \(2,\)": ((3,), (3,), (2,), {"circular": True}),
    r"shapes \(3,\) and \(2,\).*got \(4,\) and \(2,\)": ((3,), (4,), (2,), {}),
    r"1 to 999 bins, got shape \(0,\)": ((0,), (0,), (0,), {}),
    r"1 to 999 bins, got shape \(1000,\)": ((1000,), (1000,), (999,), {}),
}


@pytest.mark.parametrize("message", ERRORS)
def test_wrong_parameters_raise(message):
    *shapes, options = ERRORS[message]
    with pytest.raises(ValueError, match=message):
        bijectors.RationalQuadraticSpline(*map(np.zeros, shapes), **options)


def test_wrong_events_and_no_bins_raise():
    widths = np.zeros((4, 3))
    bijector = bijectors.RationalQuadraticSpline(widths, widths, np.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"shape \(4,\).*shape \(7, 5\)"):
        jax.eval_shape(bijector.forward, np.zeros((7, 5)))
    with pytest.raises(ValueError, match="num_bins must be at least 1, got 0"):
        bijectors.SplineTransformer(num_bins=0)


def test_log_determinants_of_both_directions_agree_to_the_rounding_of_the_values():
    random = np.random.default_rng(6)
    widths, heights = random.normal(size=(2, 4000, 6)).astype(np.float32)
    slopes = np.repeat([0.003, 0.03, 1.0, 30.0], 1000)[:, None]
    derivatives = np.broadcast_to(derivative_parameter(slopes), (4000, 5)).astype(np.float32)
    x = random.uniform(-BOUND, BOUND, 4000).astype(np.float32)

    @jax.jit
    def both(x):
        bijector = bijectors.RationalQuadraticSpline(widths, heights, derivatives, BOUND, 0)
        forward, inverse = (
            lambda value, direction=direction: getattr(bijector, direction)(value)[::-1]
            for direction in ("forward_and_log_det", "inverse_and_log_det")
        )
        log_det, pull_back, y = jax.vjp(forward, x, has_aux=True)
        other, pull_other, _ = jax.vjp(inverse, y, has_aux=True)
        ones = jnp.ones_like(x)
        return log_det + other, pull_back(ones)[0], pull_other(ones)[0]

    difference, *sensitivities = jax.device_get(both(x))
    rounding = np.finfo(np.float32).eps
    moved = rounding * BOUND * sum(np.abs(each) for each in sensitivities)
    assert (np.abs(difference) <= 2 * moved + 8 * rounding).all()
    assert np.quantile(np.abs(difference), 0.9) < 1e-5
