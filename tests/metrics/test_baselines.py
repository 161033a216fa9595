"""Gaussian and linear densities of images and tables against slow, exact computations."""

import dataclasses
import itertools

import numpy as np
import pytest
import scipy.stats

from vaeflow import metrics

FITS = [
    metrics.fit_diagonal_gaussian,
    metrics.fit_shrunk_gaussian,
    metrics.fit_linear_predictor,
]
# Two Gauss-Legendre nodes on [0, 1) integrate a quadratic exactly.
NODES = 0.5 + np.array([-0.5, 0.5]) / np.sqrt(3)


def smooth_images(count: int, shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Random walks across the image: neighbours resemble each other."""
    generator = np.random.default_rng(seed)
    steps = generator.normal(scale=8, size=(count, *shape))
    walk = np.cumsum(np.cumsum(steps, axis=1), axis=2) + np.cumsum(steps, axis=3)
    return np.clip(np.round(128 + walk), 0, 255).astype(np.uint8)


def expected_log_density(log_density, image: np.ndarray) -> float:
    """Averages a quadratic log-density exactly over the noise of an image."""
    grid = itertools.product(NODES, repeat=image.size)
    return np.mean([log_density(image.reshape(-1) + np.array(noise)) for noise in grid])


def test_diagonal_gaussian_matches_quadrature():
    train, validation, test = np.split(smooth_images(30, (2, 2, 1)), [20, 26])
    model = metrics.fit_diagonal_gaussian(train, validation)
    density = scipy.stats.norm(model.mean.reshape(-1), np.sqrt(model.variance.reshape(-1)))
    expected = [expected_log_density(lambda y: np.sum(density.logpdf(y)), image) for image in test]
    np.testing.assert_allclose(model.log_prob(test), expected, rtol=1e-10)


def test_diagonal_gaussian_has_the_moments_of_dequantised_images():
    train = smooth_images(50, (2, 3, 1))
    model = metrics.fit_diagonal_gaussian(train, train)
    # On its own training images no smoothing can help.
    np.testing.assert_allclose(model.mean, train.mean(axis=0) + 0.5)
    np.testing.assert_allclose(model.variance, train.var(axis=0) + 1 / 12)


def test_shrunk_gaussian_matches_quadrature():
    train, validation, test = np.split(smooth_images(30, (2, 2, 1)), [20, 26])
    model = metrics.fit_shrunk_gaussian(train, validation)
    assert 0 < model.shrinkage < 1
    covariance = np.cov(train.reshape(20, -1).T, bias=True) + np.eye(4) / 12
    deviations = np.sqrt(np.diagonal(covariance))
    correlation = covariance / np.outer(deviations, deviations)
    shrunk = (1 - model.shrinkage) * correlation + model.shrinkage * np.eye(4)
    scale = np.sqrt(model.variance.reshape(-1))
    density = scipy.stats.multivariate_normal(
        model.mean.reshape(-1), shrunk * np.outer(scale, scale)
    )
    expected = [expected_log_density(density.logpdf, image) for image in test]
    np.testing.assert_allclose(model.log_prob(test), expected, rtol=1e-9)


def test_shrinkage_is_the_best_on_validation():
    train, validation = np.split(smooth_images(40, (4, 4, 1)), [12])
    model = metrics.fit_shrunk_gaussian(train, validation)
    best = np.mean(model.log_prob(validation))
    for shrinkage in (0.005, 0.02, 0.1, 0.3, 0.6, 1.0):
        other = dataclasses.replace(model, shrinkage=shrinkage)
        assert np.mean(other.log_prob(validation)) <= best


@pytest.mark.parametrize("shape", [(4, 5, 1), (3, 4, 3)])
def test_linear_predictor_matches_a_loop_over_pixels(shape):
    train, validation, test = np.split(smooth_images(30, shape), [20, 26])
    model = metrics.fit_linear_predictor(train, validation)
    height, width, channels = shape
    offsets = [
        (down, right)
        for down in range(-model.radius, 1)
        for right in range(-model.radius, model.radius + 1)
        if (down, right) <= (0, 0)
    ]
    expected = np.zeros(len(test))
    for number, image in enumerate(test):
        for row, column, channel in np.ndindex(height, width, channels):
            prediction = model.mean[row, column, channel]
            for place, (down, right) in enumerate(offsets):
                above, left = row + down, column + right
                if above < 0 or not 0 <= left < width:
                    continue
                for other in range(channel if (down, right) == (0, 0) else channels):
                    weight = model.coefficients[place, row, column, channel, other]
                    difference = float(image[above, left, other]) - model.mean[above, left, other]
                    prediction += weight * difference
            density = scipy.stats.norm(
                prediction + 0.5, np.sqrt(model.variance[row, column, channel])
            )
            expected[number] += np.mean(density.logpdf(image[row, column, channel] + NODES))
    np.testing.assert_allclose(model.log_prob(test), expected, rtol=1e-10)


def test_linear_coefficients_solve_the_tied_least_squares():
    train, validation = np.split(smooth_images(40, (5, 6, 1)), [12])
    model = metrics.fit_linear_predictor(train, validation)
    assert np.isfinite(model.ridge)
    centered = train - train.mean(axis=0)
    tie = centered.var()
    places = list(np.ndindex(5, 6))
    reach = model.radius
    padded = np.pad(centered[..., 0], ((0, 0), (reach, 0), (reach, reach)))
    inputs = {
        (row, column): np.concatenate(
            [
                padded[:, row : row + reach, column : column + 2 * reach + 1].reshape(12, -1),
                padded[:, row + reach, column : column + reach],
            ],
            axis=1,
        )
        for row, column in places
    }
    size = inputs[0, 0].shape[1]
    everything = np.concatenate([inputs[place] for place in places])
    targets = np.concatenate([centered[:, row, column, 0] for row, column in places])
    shared = np.linalg.lstsq(
        np.concatenate([everything, np.sqrt(tie) * np.eye(size)]),
        np.concatenate([targets, np.zeros(size)]),
    )[0]
    for row, column in [(0, 0), (2, 3), (4, 5)]:
        weight = np.sqrt(model.ridge * tie)
        solution = np.linalg.lstsq(
            np.concatenate([inputs[row, column], weight * np.eye(size)]),
            np.concatenate([centered[:, row, column, 0], weight * shared]),
        )[0]
        np.testing.assert_allclose(
            model.coefficients[:-1, row, column, 0, 0], solution, rtol=1e-6, atol=1e-9
        )


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(1, 2, 1), (1, 1, 2), (2, 1, 1)])
def test_probabilities_of_all_images_sum_to_nearly_one(fit, shape):
    train, validation = np.split(smooth_images(300, shape), [200])
    model = fit(train, validation)
    levels = np.arange(256, dtype=np.uint8)
    images = np.stack(np.meshgrid(levels, levels), axis=-1).reshape(-1, *shape)
    total = np.sum(np.exp(model.log_prob(images)))
    # Each is a lower bound, and close where the density is flat over a level.
    assert 0.97 < total <= 1 + 1e-9


def test_information_of_neighbors_counts():
    train, validation, test = np.split(smooth_images(120, (6, 6, 3)), [80, 100])
    bits = [
        metrics.bits_per_dim(-np.mean(fit(train, validation).log_prob(test)), 108) for fit in FITS
    ]
    assert bits[0] > bits[1] + 0.1 > bits[2] + 0.2


@pytest.mark.parametrize("fit", FITS)
def test_a_pixel_that_never_changed_in_training_may_change_later(fit):
    train, validation, test = np.split(smooth_images(60, (4, 4, 1)), [40, 50])
    train[:, 0, 0] = 0
    validation[:, 0, 0] = 0
    validation[0, 0, 0] = 200
    test[:, 0, 0] = 255
    model = fit(train, validation)
    assert np.min(model.log_prob(test)) > -600


@pytest.mark.parametrize("fit", FITS)
def test_unfit_images_raise(fit):
    images = smooth_images(4, (3, 3, 1))
    with pytest.raises(ValueError, match="train must be uint8, got float64"):
        fit(images / 255, images)
    with pytest.raises(ValueError, match=r"train must have shape .* got \(4, 3, 3\)"):
        fit(images[..., 0], images)
    with pytest.raises(ValueError, match="train must hold at least 2 images, got 1"):
        fit(images[:1], images)
    with pytest.raises(ValueError, match="validation must hold at least 1 images, got 0"):
        fit(images, images[:0])
    with pytest.raises(ValueError, match=r"validation .* \(3, 3, 1\), got \(3, 2, 1\)"):
        fit(images, images[:, :, :2])
    with pytest.raises(ValueError, match=r"images .* \(3, 3, 1\), got \(2, 3, 1\)"):
        fit(images, images).log_prob(images[:, :2])


def correlated_rows(count: int, seed: int = 0) -> np.ndarray:
    """Rows of four columns in units of their own."""
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(7).normal(size=(4, 4))
    return (generator.normal(size=(count, 4)) @ mixing + 3) * [0.1, 1, 5, 100]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gaussians_of_tables_are_densities_in_the_units_of_the_table(dtype):
    train, validation, test = np.split(correlated_rows(60).astype(dtype), [30, 45])
    exact = train.astype(np.float64)
    diagonal = metrics.fit_diagonal_gaussian(train, validation)
    density = scipy.stats.norm(exact.mean(0), exact.std(0))
    np.testing.assert_allclose(diagonal.log_prob(test), density.logpdf(test).sum(1), rtol=1e-6)
    # Variances of different units are never mixed, though wider ones would fit this validation.
    wider = metrics.fit_diagonal_gaussian(train, validation * np.array([9, 1, 1, 1], dtype))
    np.testing.assert_array_equal(wider.variance, diagonal.variance)

    shrunk = metrics.fit_shrunk_gaussian(train, validation)
    assert shrunk.shrinkage < 1
    covariance = np.cov(exact.T, bias=True)
    kept = np.where(np.eye(4), 1, 1 - shrunk.shrinkage)
    density = scipy.stats.multivariate_normal(exact.mean(0), kept * covariance)
    np.testing.assert_allclose(shrunk.log_prob(test), density.logpdf(test), rtol=1e-6)


@pytest.mark.parametrize("fit", FITS[:2])
def test_unfit_tables_raise(fit):
    rows = correlated_rows(10)
    with pytest.raises(ValueError, match="train must hold at least 2 rows, got 1"):
        fit(rows[:1], rows)
    with pytest.raises(ValueError, match=r"validation must have rows of shape \(4,\), got \(3,\)"):
        fit(rows, rows[:, :3])
    with pytest.raises(ValueError, match="validation must be finite, got 4 that aren't"):
        fit(rows, np.where(np.arange(10)[:, None] == 3, np.nan, rows))
    with pytest.raises(ValueError, match=r"train must have columns that vary, .* constant one, 2"):
        fit(np.where(np.arange(4) == 2, 5.0, rows), rows)
    with pytest.raises(ValueError, match=r"rows must have rows of shape \(4,\), got \(2,\)"):
        fit(rows, rows).log_prob(rows[:, :2])
    with pytest.raises(ValueError, match="train must be uint8, got int64"):
        fit(rows.astype(int), rows)
