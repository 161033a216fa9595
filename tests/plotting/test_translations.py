"""Figures of translated images, read back from the pixels they are drawn as."""

import numpy as np
import pytest

from tests.pixels import occurrences, random_images, render
from vaeflow import plotting


def places(canvas, images):
    """Where (top, left) each image is, [*batch, 2]; each is there once."""
    result = [occurrences(canvas, image, 8) for image in images.reshape(-1, *images.shape[-3:])]
    assert [len(places) for places in result] == [1] * len(result)
    return np.array(result).reshape(*images.shape[:-3], 2)


def test_inputs_stand_before_their_translations_set_off():
    inputs, outputs = random_images(2, 6, 4, 1), random_images(2, 3, 6, 4, 3)
    figure = plotting.translations(inputs, outputs)
    canvas = render(figure)
    tops, lefts = np.moveaxis(places(canvas, outputs), -1, 0)
    before = places(canvas, inputs)
    np.testing.assert_array_equal(tops - before[:, :1], np.zeros((2, 3)))
    np.testing.assert_array_equal(np.diff(tops, axis=0), np.full((1, 3), 48 + 4))
    np.testing.assert_array_equal(np.diff(lefts, axis=1), np.full((2, 2), 32 + 4))
    np.testing.assert_array_equal(lefts[:, 0] - before[:, 1], [32 + 16] * 2)
    names = ["style 1", "style 2", "style 3"]
    assert [text.get_text() for text in figure.texts] == ["input", *names]


def test_styles_head_their_columns_next_to_a_white_corner():
    images = random_images(12, 6, 6, 3)
    inputs, styles, outputs = images[:2], images[2:5], images[5:11].reshape(2, 3, 6, 6, 3)
    figure = plotting.translations(inputs, outputs, styles[..., :1])
    canvas = render(figure)
    before, above = places(canvas, inputs), places(canvas, styles[..., :1])
    after = places(canvas, outputs)
    np.testing.assert_array_equal(after[:, :, 1], np.tile(above[:, 1], (2, 1)))
    np.testing.assert_array_equal(after[0, :, 0] - above[:, 0], [48 + 16] * 3)
    np.testing.assert_array_equal(after[0, 0, 1] - before[:, 1], [48 + 16] * 2)
    np.testing.assert_array_equal(np.diff(before[:, 0]), [48 + 4])
    top, left = above[0, 0], before[0, 1]
    assert canvas[top : top + 48, left : left + 48].min() == 255
    names = ["style 1", "style 2", "style 3"]
    assert [text.get_text() for text in figure.texts] == ["style", "", "", "input", *names]


def test_rows_and_columns_have_names():
    inputs, outputs = random_images(2, 6, 6, 1), random_images(2, 3, 6, 6, 1)
    arguments = ["one", "two"], ["a", "b", "c"]
    figure = plotting.translations(inputs, outputs, None, *arguments)
    texts = [text.get_text() for text in figure.texts]
    assert texts == ["one", "two", "input", "a", "b", "c"]
    figure = plotting.translations(inputs, outputs, outputs[0], *arguments)
    texts = [text.get_text() for text in figure.texts]
    assert texts == ["style", "one", "two", "input", "a", "b", "c"]


IMAGES = random_images(2, 6, 6, 1)
TABLE = random_images(2, 3, 6, 6, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IMAGES[:1], TABLE), r"inputs must be one for each row .* got shapes \(1, 6, 6, 1\) and"),
        ((IMAGES[:, :5], TABLE), r"same height and width, got shapes \(2, 5, 6, 1\) and"),
        ((IMAGES, TABLE, IMAGES), r"styles must be one for each column .* got shapes \(2, 6, 6, 1"),
        ((IMAGES, TABLE, TABLE[0, :, :5]), r"got shapes \(3, 5, 6, 3\) and \(2, 3, 6, 6, 3\)"),
        ((np.float32(IMAGES), TABLE), "inputs must be uint8, got float32"),
        ((IMAGES, TABLE[0]), "outputs must have 5 axes"),
        ((IMAGES, TABLE, TABLE), "styles must have 4 axes"),
        ((IMAGES, TABLE, None, ["a"]), r"one a column, got \(1, 3\) for outputs of shape \(2, 3,"),
        ((IMAGES, TABLE, None, [], ["a"] * 4), r"got \(2, 4\) for outputs"),
    ],
)
def test_mismatched_arrays_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        plotting.translations(*arguments)
