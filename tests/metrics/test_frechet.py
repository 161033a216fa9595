"""The Fréchet distance: closed forms, a slow reference, and covariances without full rank."""

import numpy as np
import pytest
import scipy.linalg

from vaeflow import metrics

# All sign patterns: mean 0, and no correlation.
SIGNS = np.stack(np.meshgrid([-1.0, 1.0], [-1.0, 1.0], [-1.0, 1.0]), axis=-1).reshape(8, 3)
UNIT = SIGNS * np.sqrt(7 / 8)  # of variance 1, the denominator being 7


def sample(rows, columns, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(rows, columns)) @ generator.normal(size=(columns, columns))


def test_worked_examples():
    assert metrics.frechet_distance(UNIT, UNIT[::-1]) == pytest.approx(0, abs=1e-14)
    shift = np.array([3.0, 0, -4])
    assert metrics.frechet_distance(UNIT, UNIT + shift) == pytest.approx(25, rel=1e-12)
    # Isotropic: d (s - t)^2, of deviations s and t.
    assert metrics.frechet_distance(2 * UNIT, 5 * UNIT) == pytest.approx(3 * 9, rel=1e-12)
    first, second = np.array([1.0, 2, 3]), np.array([4.0, 2, 0])
    expected = np.sum((first - second) ** 2) + 25
    result = metrics.frechet_distance(first * UNIT, second * UNIT + shift)
    assert result == pytest.approx(expected, rel=1e-12)


def test_distance_depends_on_mean_and_covariance_only():
    rows, other = sample(50, 4), sample(80, 4, 1) ** 3
    factor, own = (np.linalg.cholesky(np.cov(x, rowvar=False)) for x in (rows, other))
    other = (other - other.mean(axis=0)) @ np.linalg.inv(own).T @ factor.T + rows.mean(axis=0)
    assert metrics.frechet_distance(rows, other) == pytest.approx(0, abs=1e-12)
    assert metrics.frechet_distance(rows, other[:40]) > 0.01


@pytest.mark.parametrize(("rows", "others", "columns"), [(40, 60, 5), (300, 200, 12), (9, 500, 8)])
def test_it_is_that_of_the_matrices_root(rows, others, columns):
    first, second = sample(rows, columns, 1), sample(others, columns, 2) + 1
    one, two = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = scipy.linalg.sqrtm(one @ two).real
    expected = np.sum((first.mean(0) - second.mean(0)) ** 2) + np.trace(one + two - 2 * root)
    assert metrics.frechet_distance(first, second) == pytest.approx(expected, rel=1e-7)


def test_it_is_symmetric_and_moves_with_the_features():
    first, second = sample(30, 6, 1), sample(70, 6, 2)
    result = metrics.frechet_distance(first, second)
    assert result > 0.1
    assert metrics.frechet_distance(second, first) == pytest.approx(result, rel=1e-12)
    turned = scipy.linalg.qr(sample(6, 6, 3))[0]
    moved = [7 - 3 * rows @ turned for rows in (first, second)]
    assert metrics.frechet_distance(*moved) == pytest.approx(9 * result, rel=1e-10)


def test_fewer_rows_than_features_lose_no_digits():
    first = sample(10, 40)
    scale = np.trace(np.cov(first, rowvar=False))
    # The root of a product of covariances would be wrong by 1e-8 in each missing direction.
    centered = first - first.mean(axis=0)
    result = metrics.frechet_distance(centered, (1 + 1e-5) * centered)
    assert result == pytest.approx(1e-10 * scale, rel=1e-4)
    # Each in its own plane: no coupling saves anything.
    second = np.concatenate([np.zeros((12, 40)), sample(12, 9, 1)], axis=1)
    first = np.concatenate([first, np.zeros((10, 9))], axis=1)
    traces = [np.trace(np.cov(rows, rowvar=False)) for rows in (first, second)]
    between = np.sum((first.mean(0) - second.mean(0)) ** 2)
    assert metrics.frechet_distance(first, second) == pytest.approx(sum(traces) + between)


def test_float32_features_far_from_zero_keep_their_digits():
    first, second = (1000 + 0.01 * sample(200, 3, seed) for seed in (1, 2))
    exact = metrics.frechet_distance(np.float32(first) - 1000.0, np.float32(second) - 1000.0)
    result = metrics.frechet_distance(np.float32(first), np.float32(second))
    assert result == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_rounding_leaves_no_distance_below_zero(seed):
    first = sample(30, 20, seed)
    for second in (first, first[::-1]):
        assert 0 <= metrics.frechet_distance(first, second) < 1e-12


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.ones((1, 3)), np.ones((4, 3)), r"first must .* 2 examples or more, got \(1, 3\)"),
        (np.ones((4, 3)), np.ones(4), r"second must have shape \[example, feature\].*got \(4,\)"),
        (np.ones((4, 3)), np.ones((4, 2)), r"the same features, got shapes \(4, 3\) and \(4, 2\)"),
        (np.ones((4, 0)), np.ones((4, 0)), r"first must have shape .*, got \(4, 0\)"),
        (np.array([[0, np.nan], [np.inf, 1]]), np.ones((2, 2)), "first must be finite, got 2"),
    ],
)
def test_invalid_features_raise(first, second, message):
    with pytest.raises(ValueError, match=message):
        metrics.frechet_distance(first, second)
