"""Figures of the manifold of two latents."""

import numpy as np
import pytest

from tests.pixels import occurrences, random_images, render
from vaeflow import plotting
from vaeflow.plotting.latents import latent_grid, normal_quantiles


def test_quantiles_part_the_normal_into_equal_shares():
    np.testing.assert_allclose(
        normal_quantiles(4), [-1.15034938, -0.31863936, 0.31863936, 1.15034938]
    )
    assert normal_quantiles(5)[2] == 0


def test_grid_goes_right_with_the_first_latent_and_up_with_the_second():
    grid = latent_grid(np.array([-1.0, 0.0, 2.0]), np.array([-3.0, 3.0]))
    assert grid.shape == (2, 3, 2)
    assert grid[0, 2].tolist() == [2, 3]
    assert grid[1, 0].tolist() == [-1, -3]


def test_images_touch_and_few_values_are_written():
    images = random_images(3, 5, 6, 6, 1)
    figure = plotting.latent_manifold(images, [-2, -1, 0, 1, 2], [-1, -0.0, 1])
    texts = [text.get_text() for text in figure.texts]
    assert texts == ["1.0", "z1 = 0.0", "-1.0", "-2.0", "", "z0 = 0.0", "", "2.0"]
    canvas = render(figure)
    places = np.array([[occurrences(canvas, image, 8)[0] for image in row] for row in images])
    assert (np.diff(places[:, :, 0], axis=0) == 48).all()
    assert (np.diff(places[:, :, 1], axis=1) == 48).all()
    assert canvas[:, -4:].min() == 255  # the last label isn't cut off


def test_values_that_do_not_fit_raise():
    images = random_images(2, 3, 6, 6, 1)
    with pytest.raises(ValueError, match=r"got \(2, 2\) for images of shape \(2, 3, 6, 6, 1\)"):
        plotting.latent_manifold(images, [0.0, 1.0])
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        normal_quantiles(0)
