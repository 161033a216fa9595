"""Figures of what each latent does."""

import numpy as np
import pytest

from tests.pixels import occurrences, random_images, render
from vaeflow import plotting


def test_rows_are_latents_with_their_kl_and_columns_values():
    images = random_images(2, 3, 6, 6, 1)
    figure = plotting.traversals(images, ["z4", "digit"], [2.345, 0.1], [-1.5, 0, "mean"])
    texts = [text.get_text() for text in figure.texts]
    assert texts == ["z4, KL 2.35 nats", "digit, KL 0.10 nats", "-1.5", "0", "mean"]
    canvas = render(figure)
    places = np.array([[occurrences(canvas, image, 8)[0] for image in row] for row in images])
    assert (np.diff(places[:, :, 0], axis=1) == 0).all()
    assert (np.diff(places[:, :, 1], axis=0) == 0).all()
    assert (np.diff(places[:, 0, 0]) > 0).all()
    assert (np.diff(places[0, :, 1]) > 0).all()


def test_kl_and_values_are_optional():
    figure = plotting.traversals(random_images(1, 3, 6, 6, 3), ["z4"])
    assert [text.get_text() for text in figure.texts] == ["z4"]


@pytest.mark.parametrize(
    ("arguments", "counts"),
    [
        ((["z0"],), r"\(1, 2, 3\)"),
        ((["z0", "z1"], [1.0]), r"\(2, 1, 3\)"),
        ((["z0", "z1"], None, [0.0, 1.0]), r"\(2, 2, 2\)"),
    ],
)
def test_labels_must_fit_the_images(arguments, counts):
    images = random_images(2, 3, 6, 6, 1)
    with pytest.raises(ValueError, match=rf"got {counts} for images of shape \(2, 3, 6, 6, 1\)"):
        plotting.traversals(images, *arguments)
