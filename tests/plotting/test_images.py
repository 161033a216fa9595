"""Figures of images, read back from the pixels they are drawn as."""

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from tests.pixels import occurrences, random_images, render
from vaeflow import plotting


@pytest.mark.parametrize("channels", [1, 3])
def test_grid_shows_each_pixel_as_a_square(channels):
    images = random_images(5, 6, 4, channels)
    canvas = render(plotting.image_grid(jnp.asarray(images), columns=3))
    places = [occurrences(canvas, image, scale=8) for image in images]
    assert [len(result) for result in places] == [1] * 5
    tops, lefts = np.array([result[0] for result in places]).T
    assert tops.tolist() == [4] * 3 + [4 + 6 * 8 + 4] * 2
    assert lefts.tolist() == [4, 40, 76, 4, 40]
    assert canvas.shape == (4 + 48 + 4 + 48 + 4, 3 * 32 + 4 * 4, 3)


def test_grid_is_about_square_and_fits_a_screen():
    canvas = render(plotting.image_grid(random_images(100, 24, 24, 1)))
    assert canvas.shape[0] == canvas.shape[1] < 1100


def test_rows_are_labelled_to_their_left():
    images = random_images(2, 3, 8, 8, 1)
    canvas = render(plotting.temperature_samples(images, [0.7, 1.0]))
    (first,) = occurrences(canvas, images[0, 0], scale=8)
    (second,) = occurrences(canvas, images[1, 0], scale=8)
    assert first[1] == second[1] > 40
    for top, _ in (first, second):
        label = canvas[top : top + 64, : first[1] - 1]
        assert label.min() < 64
        # The text stands clear of the edge and of the image.
        assert label[:, :4].min() == 255
        assert label[:, -4:].min() == 255
    assert len(canvas) == second[0] + 64 + 4


def test_differences_are_brightened_by_a_whole_factor():
    inputs = np.full((2, 6, 6, 1), 100, np.uint8)
    outputs = inputs.copy()
    outputs[0, 2, 3] = 97
    outputs[1, 4, 1] = 101
    figure = plotting.reconstructions(inputs, outputs)
    assert figure.texts[2].get_text() == "|difference|\nlargest 3 of 255\nshown times 85"
    canvas = render(figure)
    expected = np.zeros_like(inputs)
    expected[0, 2, 3] = 255
    expected[1, 4, 1] = 85
    for image in (*outputs, *expected):
        assert len(occurrences(canvas, image, scale=8)) == 1


def test_exact_reconstructions_say_so():
    images = random_images(2, 6, 6, 3)
    figure = plotting.reconstructions(images, images)
    assert figure.texts[2].get_text() == "|difference|\nlargest 0 of 255"
    assert len(occurrences(render(figure), images[0], scale=8)) == 2


def test_ends_of_interpolations_are_marked():
    images = random_images(1, 4, 8, 8, 3)
    figure = plotting.interpolations(images)
    canvas = render(figure)
    lefts = [occurrences(canvas, image, scale=8)[0][1] for image in images[0]]
    top = occurrences(canvas, images[0, 0], scale=8)[0][0]
    dark = [canvas[: top - 1, left : left + 64].min() < 64 for left in lefts]
    assert dark == [True, False, False, True]


def test_paths_have_names():
    figure = plotting.interpolations(random_images(2, 3, 8, 8, 3), ["linear", "spherical"])
    assert [text.get_text() for text in figure.texts] == ["linear", "spherical", "real", "", "real"]


def test_tables_have_labels_on_both_sides():
    images = random_images(2, 3, 8, 8, 3)
    figure = plotting.image_table(images, ["a", "b"], ["c", "d", "e"])
    assert [text.get_text() for text in figure.texts] == ["a", "b", "c", "d", "e"]
    canvas = render(figure)
    assert all(
        len(occurrences(canvas, image, scale=8)) == 1 for image in images.reshape(6, 8, 8, 3)
    )


def test_labels_too_wide_for_their_columns_are_upright_and_within_the_figure():
    images = random_images(1, 3, 8, 8, 3)
    for labels, rotation in ((["a", "b", "c"], 0), (["rather long", "", "quite as long"], 0)):
        figure = plotting.image_table(images, [], labels)
        assert {text.get_rotation() for text in figure.texts} == {rotation}
    boxes = [text.get_window_extent() for text in figure.texts if text.get_text()]
    assert boxes[0].x0 >= 0
    assert boxes[1].x1 <= figure.bbox.x1
    assert boxes[0].x1 < boxes[1].x0
    canvas = render(figure)
    assert all(len(occurrences(canvas, image, scale=8)) == 1 for image in images[0])
    figure = plotting.image_table(images, [], ["", "longer than all three images are", ""])
    (box,) = [text.get_window_extent() for text in figure.texts if text.get_text()]
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
    figure = plotting.image_table(images, [], ["rather long", "as long", "short"])
    assert {text.get_rotation() for text in figure.texts} == {90}
    assert max(text.get_window_extent().y1 for text in figure.texts) <= figure.bbox.y1


def test_neighbors_stand_below_their_sample():
    samples = random_images(3, 8, 8, 1)
    neighbors = random_images(7, 8, 8, 1)[1:].reshape(3, 2, 8, 8, 1)
    samples = 255 - samples
    canvas = render(plotting.nearest_images(samples, neighbors))
    for sample, below in zip(samples, neighbors, strict=True):
        (place,) = occurrences(canvas, sample, scale=8)
        rows = [occurrences(canvas, image, scale=8)[0] for image in below]
        assert [left for _, left in rows] == [place[1]] * 2
        assert rows[0][0] - place[0] == 64 + 16
        assert rows[1][0] - rows[0][0] == 64 + 4


def test_unfit_images_raise():
    images = random_images(4, 6, 6, 1)
    with pytest.raises(ValueError, match="images must be uint8, got float32"):
        plotting.image_grid(images.astype(np.float32))
    with pytest.raises(ValueError, match=r"images must have 4 axes.*\(4, 6, 6, 2\)"):
        plotting.image_grid(random_images(4, 6, 6, 2))
    with pytest.raises(ValueError, match=r"none empty.*\(0, 6, 6, 1\)"):
        plotting.image_grid(images[:0])
    with pytest.raises(ValueError, match="columns must be at least 1, got 0"):
        plotting.image_grid(images, columns=0)
    with pytest.raises(ValueError, match=r"each of 1 temperatures.*\(2, 2, 6, 6, 1\)"):
        plotting.temperature_samples(images.reshape(2, 2, 6, 6, 1), [1.0])
    with pytest.raises(ValueError, match=r"\(4, 6, 6, 1\) and \(3, 6, 6, 1\)"):
        plotting.reconstructions(images, images[:3])
    with pytest.raises(ValueError, match=r"at least 2 steps.*\(4, 1, 6, 6, 1\)"):
        plotting.interpolations(images[:, None])
    with pytest.raises(ValueError, match=r"labels must name 2 paths, got 1"):
        plotting.interpolations(images.reshape(2, 2, 6, 6, 1), ["linear"])
    with pytest.raises(ValueError, match=r"got \(2, 1\) for images of shape \(2, 2, 6, 6, 1\)"):
        plotting.image_table(images.reshape(2, 2, 6, 6, 1), (), ["a"])
    with pytest.raises(ValueError, match=r"\(4, 6, 6, 1\) and \(2, 2, 6, 6, 1\)"):
        plotting.nearest_images(images, images.reshape(2, 2, 6, 6, 1))


def test_figures_leave_matplotlib_as_it_was():
    code = (
        "import sys, numpy, vaeflow.plotting as plotting\n"
        "assert 'matplotlib' not in sys.modules\n"
        "plotting.image_grid(numpy.zeros((1, 4, 4, 1), numpy.uint8))\n"
        "assert 'matplotlib' in sys.modules\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
