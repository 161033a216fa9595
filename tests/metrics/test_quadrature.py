"""Integrals over boxes."""

import numpy as np
import pytest

from vaeflow import metrics


def test_gaussians():
    line = lambda x: -0.5 * np.sum((x / 0.3) ** 2, -1)  # noqa: E731
    result = metrics.log_integral(line, [-4], [5], 400)
    assert result == pytest.approx(np.log(0.3 * np.sqrt(2 * np.pi)), abs=1e-6)
    result = metrics.log_integral(line, [-4, -3], [5, 3], 400)
    assert result == pytest.approx(2 * np.log(0.3 * np.sqrt(2 * np.pi)), abs=1e-6)


def test_a_box_is_its_area_and_large_values_do_not_overflow():
    constant = lambda x: np.full(len(x), 5000.0)  # noqa: E731
    result = metrics.log_integral(constant, [0, 0], [2, 3], 7)
    assert result == pytest.approx(5000 + np.log(6), abs=1e-9)


@pytest.mark.parametrize(
    ("low", "high", "cells"),
    [([0, 0], [1], 5), ([0] * 3, [1] * 3, 5), ([1], [0], 5), ([0], [1], 0), (0, 1, 5)],
)
def test_wrong_boxes_raise(low, high, cells):
    with pytest.raises(ValueError, match="low"):
        metrics.log_integral(lambda x: x[:, 0], low, high, cells)


def normal(mean, scale):
    return lambda x: (
        -0.5 * np.sum(((x - mean) / scale) ** 2, -1)
        - x.shape[-1] * np.log(scale * np.sqrt(2 * np.pi))
    )


def test_entropies_and_divergences_of_gaussians():
    p, q = normal(0.5, 0.4), normal(0, 0.7)
    entropy = metrics.expectation(p, lambda x: -p(x), [-3], [4], 400)
    assert entropy == pytest.approx(0.5 * np.log(2 * np.pi * np.e * 0.4**2), abs=1e-6)
    divergence = metrics.expectation(p, lambda x: p(x) - q(x), [-3, -3], [4, 4], 400)
    one = np.log(0.7 / 0.4) + (0.4**2 + 0.5**2) / (2 * 0.7**2) - 0.5
    assert divergence == pytest.approx(2 * one, abs=1e-6)


def test_the_function_is_ignored_where_the_density_is_zero():
    def half(x):
        return np.where(x[:, 0] > 0, 0.0, -np.inf)

    result = metrics.expectation(half, lambda x: np.where(x[:, 0] > 0, x[:, 0], np.nan), [-1], [1])
    assert result == pytest.approx(0.5, abs=1e-6)
