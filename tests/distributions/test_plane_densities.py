"""Densities on the plane against closed forms, and their samples against the densities."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial
import scipy.stats

from tests.drawn import log_prob
from vaeflow import distributions, metrics

KEY = jax.random.key(0)
WEIGHTS = np.array([[1.0, 0, 2], [3, 4, 0]])
HISTOGRAM = distributions.toy.Histogram(WEIGHTS, [-3, 1], [3, 2])


@functools.partial(jax.jit, static_argnums=(0, 1))
def drawn(draw, shape, key):
    return draw(key, shape)


@functools.cache
def points_of(name):
    return np.asarray(drawn(SAMPLERS[name], (40_000,), KEY))


def test_histogram_is_constant_in_each_cell():
    middles = [[-2, 1.25], [0, 1.25], [2, 1.25], [-2, 1.75], [0, 1.75], [2, 1.75]]
    # Borders belong to the cell above, those of the rectangle to the cell inside.
    borders = [[-3, 1], [-1, 1.5], [1, 1], [3, 1], [-3, 2.0]]
    outside = [[-3.001, 1.2], [0, 2.001], [1e6, 1e6], [-np.inf, 1.2]]
    found = np.asarray(log_prob(HISTOGRAM, np.float32(middles + borders + outside)))
    with np.errstate(divide="ignore"):
        expected = np.log(WEIGHTS / 10).ravel()  # each cell has area 2 * 0.5
    np.testing.assert_allclose(found[:6], expected, rtol=1e-6)
    np.testing.assert_allclose(np.exp(found[6:11]), [0.1, 0.4, 0.2, 0.2, 0.3], rtol=1e-5)
    np.testing.assert_array_equal(found[11:], -np.inf)


@jax.jit
@jax.value_and_grad
def entropy_and_gradient(histogram):
    return histogram.entropy()


def test_entropy_of_a_histogram_is_that_of_its_cells():
    mass = WEIGHTS[WEIGHTS > 0] / 10
    entropy, gradient = jax.device_get(entropy_and_gradient(HISTOGRAM))
    assert entropy == pytest.approx(-np.sum(mass * np.log(mass)), rel=1e-6)
    doubled = distributions.toy.Histogram(WEIGHTS, [-3, 1], [3, 5])
    assert entropy_and_gradient(doubled)[0] == pytest.approx(entropy + np.log(4), rel=1e-6)

    def density(x):
        return np.asarray(log_prob(HISTOGRAM, x))

    by_quadrature = metrics.expectation(density, lambda x: -density(x), [-3, 1], [3, 2], 300)
    assert by_quadrature == pytest.approx(float(entropy), abs=1e-4)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def cells_of(samples, edges):
    return np.histogram2d(samples[:, 1], samples[:, 0], bins=edges)[0]


def fits(counts, probabilities):
    """Whether counts are those of draws with these probabilities, by a chi-square test."""
    some = probabilities > 0
    assert not counts[~some].any()
    expected = probabilities[some] / probabilities.sum() * counts.sum()
    return scipy.stats.chisquare(counts[some], expected).pvalue > 1e-3


@functools.partial(jax.jit, static_argnames="count")
def samples_and_densities(histogram, count=40_000):
    samples = histogram.sample(seed=KEY, sample_shape=count)
    return samples, histogram.log_prob(samples)


def test_samples_of_a_histogram_fill_its_cells_evenly():
    samples, density = jax.device_get(samples_and_densities(HISTOGRAM))
    edges = np.linspace(1, 2, 5), np.linspace(-3, 3, 10)  # finer than the cells
    finer = np.repeat(np.repeat(WEIGHTS, 2, 0), 3, 1)
    counts = cells_of(samples, edges)
    assert counts.sum() == 40_000
    assert fits(counts, finer)
    assert np.isfinite(density).all()


def test_samples_never_leave_cells_with_mass():
    """Many cells, far from 0, where rounding would carry samples over."""
    weights = np.random.default_rng(0).integers(0, 2, (300, 400))
    histogram = distributions.toy.Histogram(weights, [100, -100], [104, -97])
    assert np.isfinite(samples_and_densities(histogram, 15_000)[1]).all()


def test_histogram_of_wrong_shapes_raises():
    with pytest.raises(ValueError, match=r"\(3,\), \(2,\) and \(2,\)"):
        distributions.toy.Histogram(np.ones(3), [0, 0], [1, 1])
    with pytest.raises(ValueError, match=r"\(3, 3\), \(1,\) and \(2,\)"):
        distributions.toy.Histogram(np.ones((3, 3)), [0], [1, 1])
    with pytest.raises(ValueError, match=r"\(2,\), got an array of shape \(5, 3\)"):
        HISTOGRAM.log_prob(np.zeros((5, 3)))


def test_checkerboard():
    board = distributions.toy.checkerboard()
    assert entropy_and_gradient(board)[0] == pytest.approx(np.log(32), rel=1e-6)
    points = np.float32([[-3.0, -3], [-1, -3], [1, 1], [3, 1], [5, 1]])
    found = np.exp(log_prob(board, points))
    np.testing.assert_allclose(found, [0, 1 / 32, 0, 1 / 32, 0], rtol=1e-5)


def test_eight_gaussians():
    angles = np.pi / 4 * np.arange(8)
    means = 2.8 * np.stack([np.cos(angles), np.sin(angles)], -1)
    x = np.random.default_rng(0).uniform(-4, 4, (50, 2)).astype(np.float32)
    density = np.mean([scipy.stats.multivariate_normal(m, 0.35**2).pdf(x) for m in means], 0)

    @jax.jit
    def facts(x):
        gaussians = distributions.toy.eight_gaussians()
        return gaussians.log_prob(x), gaussians.sample(seed=KEY, sample_shape=20_000)

    found, samples = jax.device_get(facts(x))
    np.testing.assert_allclose(found, np.log(density), rtol=1e-4, atol=1e-4)
    radius = np.hypot(*samples.T)
    # Of |m + e|: the square has the mean 2.8^2 + 2 * 0.35^2.
    assert np.mean(radius**2) == pytest.approx(2.8**2 + 2 * 0.35**2, rel=0.01)


def test_image_density_is_upright_within_the_square():
    brightness = np.array([[0, 0, 1, 0], [3, 0, 0, 0]])
    density = distributions.toy.image_density(brightness)
    points = np.float32([[1.0, 1], [-3, -1], [-3, 1], [3, -1], [1, 3]])
    np.testing.assert_allclose(
        np.exp(log_prob(density, points)), [0.25 / 4, 0.75 / 4, 0, 0, 0], rtol=1e-5
    )
    tall = distributions.toy.image_density(np.ones((4, 2)))
    found = log_prob(tall, np.float32([[1.9, 3.9], [-1.9, -3.9], [2.1, 0], [0, 4.1]]))
    np.testing.assert_array_equal(np.isfinite(found), [True, True, False, False])


WRONG_IMAGES = {
    "black": (np.zeros((3, 4)), "values from 0 to 0"),
    "negative": (np.array([[1, -1]]), "from -1 to 1"),
    "not finite": (np.array([[1, np.inf]]), "to inf"),
    "colours": (np.ones((3, 4, 3)), r"\(3, 4, 3\)"),
    "empty": (np.ones((0, 4)), r"\(0, 4\)"),
}


@pytest.mark.parametrize("case", WRONG_IMAGES)
def test_wrong_images_raise(case):
    brightness, message = WRONG_IMAGES[case]
    with pytest.raises(ValueError, match=message):
        distributions.toy.image_density(brightness)


def moons_distance(points):
    """Distance from the nearer of the two half circles."""
    upper = points / 2.4 + [0.5, 0.25]
    lower = -points / 2.4 + [0.5, 0.25]
    distances = []
    for moon in (upper, lower):
        angle = np.clip(np.arctan2(moon[:, 1], moon[:, 0]), 0, np.pi)
        # Below the diameter the nearer end counts.
        angle = np.where(moon[:, 1] < 0, np.where(moon[:, 0] < 0, np.pi, 0), angle)
        distances.append(np.hypot(moon[:, 0] - np.cos(angle), moon[:, 1] - np.sin(angle)))
    return 2.4 * np.min(distances, 0)


def spirals_distance(points):
    t = np.linspace(0, 1, 4000)
    arm = 3.6 * np.stack([-t * np.cos(3 * np.pi * t), t * np.sin(3 * np.pi * t)], -1)
    return scipy.spatial.cKDTree(np.concatenate([arm, -arm])).query(points)[0]


SAMPLERS = {
    "pinwheel": distributions.toy.pinwheel,
    "two_moons": distributions.toy.two_moons,
    "two_spirals": distributions.toy.two_spirals,
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_are_pure_functions_of_a_key_and_a_shape(name):
    draw = SAMPLERS[name]
    points = drawn(draw, (3, 5), KEY)
    assert points.shape == (3, 5, 2)
    assert points.dtype == jnp.float32
    assert jax.eval_shape(draw, KEY).shape == (2,)
    again = jax.jit(lambda key: draw(key, (3, 5)))(KEY)  # traced once more
    np.testing.assert_allclose(points, again, rtol=1e-5, atol=1e-6)
    assert np.any(np.asarray(points) != drawn(draw, (3, 5), jax.random.key(1)))
    many = points_of(name)
    np.testing.assert_allclose(many.mean(0), 0, atol=0.05)
    assert 3 < np.abs(many).max() < 5


@pytest.mark.parametrize(
    ("name", "distance", "blur"),
    [("two_moons", moons_distance, 0.2), ("two_spirals", spirals_distance, 0.1)],
)
def test_curves_are_blurred_by_a_gaussian(name, distance, blur):
    away = distance(points_of(name))
    # Across a smooth curve the distance is |e|; beyond its ends it is larger.
    assert np.mean(away**2) == pytest.approx(blur**2, rel=0.08)
    assert away.max() < 5.5 * blur


def test_two_moons_are_even_along_their_circles():
    points = points_of("two_moons")
    # Means over t of (cos t - 0.5, sin t - 0.25) and its square, scaled; the sides cancel.
    second = 2.4**2 * np.array([0.5 + 0.25, 0.5 - 2 * 0.25 * 2 / np.pi + 0.0625]) + 0.2**2
    np.testing.assert_allclose(np.mean(points**2, 0), second, rtol=0.02)


def test_spirals_are_as_dense_outside_as_inside():
    radius = np.hypot(*points_of("two_spirals").T)
    assert np.mean(radius**2) == pytest.approx(3.6**2 / 2 + 2 * 0.1**2, rel=0.02)


def test_pinwheel_has_five_equal_arms_that_turn():
    points = points_of("pinwheel")
    radius = np.hypot(*points.T)
    assert np.mean((radius / 2) ** 2) == pytest.approx(1 + 0.3**2 + 0.1**2, rel=0.01)
    # Turned back by the angle at this radius, the arms are rays.
    angle = np.arctan2(points[:, 1], points[:, 0]) - np.exp(radius / 2) / 4
    outer = radius > 1.5
    place = 5 * angle[outer] / (2 * np.pi)
    np.testing.assert_allclose(np.abs(place - np.round(place)).mean(), 0, atol=0.1)
    counts = np.bincount(np.round(place).astype(int) % 5)
    assert fits(counts, np.ones(5))
