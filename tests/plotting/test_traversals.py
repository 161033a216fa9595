"""Figures of latent traversals."""

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


def test_frames_go_there_and_back_in_rows_of_five():
    images = random_images(7, 3, 6, 6, 1)
    frames = plotting.traversal_frames(images, [f"z{latent}" for latent in range(7)])
    assert frames.shape[0] == 4
    for frame, value in zip(frames, [0, 1, 2, 1], strict=True):
        places = [occurrences(frame, image, 8) for image in images[:, value]]
        assert [len(result) for result in places] == [1] * 7
        tops = [result[0][0] for result in places]
        assert len(set(tops[:5])) == len(set(tops[5:])) == 1
        assert tops[5] > tops[0]
    with pytest.raises(ValueError, match="names must be 7, one a latent, got 1"):
        plotting.traversal_frames(images, ["z0"])
