"""Figures of the plane."""

import re

import numpy as np
import pytest

from vaeflow import plotting
from vaeflow.plotting.plane import grid_lines, plane_points

POINTS = plane_points(2.0, 4)
VALUES = np.exp(-np.sum((POINTS - [1.5, -0.5]) ** 2, -1))


def test_points_are_centres_of_squares_from_below():
    np.testing.assert_allclose(
        POINTS[:5], [[-1.5, -1.5], [-0.5, -1.5], [0.5, -1.5], [1.5, -1.5], [-1.5, -0.5]]
    )
    assert POINTS.shape == (16, 2)
    assert POINTS.dtype == np.float32


def test_lines_are_upright_then_level():
    lines = grid_lines(2.0, 3, 5)
    assert lines.shape == (6, 5, 2)
    np.testing.assert_allclose(lines[0, :, 0], -2)
    np.testing.assert_allclose(lines[0, :, 1], [-2, -1, 0, 1, 2])
    np.testing.assert_allclose(lines[5, :, 1], 2)
    np.testing.assert_allclose(lines[5, :, 0], [-2, -1, 0, 1, 2])


def test_a_density_lies_where_its_points_do():
    figure = plotting.plane_table([[plotting.Density(VALUES, "here")]], 2.0)
    (axes,) = figure.axes
    (image,) = axes.images
    pixels = np.asarray(image.get_array())
    # The second row from below, the last column: z1 = 1.5, z2 = -0.5.
    assert np.unravel_index(pixels.argmax(), pixels.shape) == (1, 3)
    assert image.origin == "lower"
    assert tuple(image.get_extent()) == (-2, 2, -2, 2)
    assert [text.get_text() for text in axes.texts] == ["here"]


def test_a_row_shares_the_shades_of_its_first_density():
    rows = [
        [plotting.Density(VALUES), plotting.Density(2 * VALUES)],
        [plotting.Density(3 * VALUES), plotting.Density(VALUES)],
    ]
    figure = plotting.plane_table(rows, 2.0, ["a", "b"], ["c", "d"])
    tops = [axes.images[0].get_clim()[1] for axes in figure.axes]
    np.testing.assert_allclose(tops, np.array([1, 1, 3, 3]) * VALUES.max())
    assert [axes.get_title() for axes in figure.axes] == ["c", "d", "", ""]
    texts = [[text.get_text() for text in axes.texts if text.get_text()] for axes in figure.axes]
    assert texts == [["a"], [], ["b"], []]


def numbers(axis) -> list[float]:
    """Where numbers stand along an axis."""
    ticks = axis.get_major_ticks()
    return [tick.get_loc() for tick in ticks if tick.label1.get_visible()]


@pytest.mark.parametrize(
    ("bound", "number"), [(4.0, 2), (4.5, 2), (6, 4), (2.5, 2), (1.0, 0.5), (0.01, 0.005), (90, 50)]
)
def test_numbers_stand_along_the_outer_panels_below_and_to_the_left(bound, number):
    panel = plotting.Density(VALUES)
    figure = plotting.plane_table([[panel] * 3] * 2, bound, names=("u", "v"))
    figure.draw_without_rendering()
    expected = [-number, 0, number]
    for (row, column), axes in np.ndenumerate(np.array(figure.axes).reshape(2, 3)):
        assert axes.get_xlabel() == ("u" if row == 1 else "")
        assert axes.get_ylabel() == ("v" if column == 0 else "")
        assert axes.get_xlim() == axes.get_ylim() == (-bound, bound)
        np.testing.assert_allclose(numbers(axes.xaxis), expected if row == 1 else [])
        np.testing.assert_allclose(numbers(axes.yaxis), expected if column == 0 else [])


def test_labels_of_rows_captions_and_titles_keep_apart():
    panel = plotting.Density(VALUES, "a caption")
    figure = plotting.plane_table([[panel] * 2] * 2, 4.0, ["first", "second"], ["left", "right"])
    figure.draw_without_rendering()
    for row, axes in enumerate(figure.axes[::2]):
        caption, label = axes.texts
        assert label.get_text() == ["first", "second"][row]
        assert label.get_window_extent().x0 >= 0
        assert label.get_window_extent().x1 < axes.yaxis.get_tightbbox().x0
        assert caption.get_window_extent().y0 > axes.bbox.y1
        above = axes.title.get_window_extent() if row == 0 else figure.axes[0].bbox
        assert caption.get_window_extent().y1 < above.y0


def test_values_that_are_not_finite_count_as_zero():
    values = np.where(np.arange(16) % 3 == 0, np.nan, 1.0)
    values[1] = np.inf
    (axes,) = plotting.plane_table([[plotting.Density(values)]], 2.0).axes
    pixels = np.asarray(axes.images[0].get_array()).ravel()
    assert np.isfinite(pixels).all()
    np.testing.assert_array_equal(pixels[[0, 1, 2, 3]], [0, 0, 1, 0])
    assert axes.images[0].get_clim() == (0, 1)
    plotting.plane_table([[plotting.Density(np.zeros(4))]], 2.0).draw_without_rendering()


def test_lines_are_drawn_as_given_in_a_colour_for_each_direction():
    lines = grid_lines(2.0, 3, 5) ** 3
    (axes,) = plotting.plane_table([[plotting.WarpedGrid(lines)]], 2.0).axes
    drawn = np.stack([line.get_xydata() for line in axes.lines])
    np.testing.assert_allclose(drawn, lines)
    colours = [line.get_color() for line in axes.lines]
    assert len(set(colours[:3])) == len(set(colours[3:])) == 1
    assert colours[0] != colours[3]
    assert axes.get_xlim() == axes.get_ylim() == (-2, 2)


DENSITY = plotting.Density(VALUES)
WRONG = {
    "no panels": (([], 2.0), "above 0, got lengths []"),
    "ragged": (([[DENSITY], [DENSITY] * 2], 2.0), "lengths [1, 2]"),
    "row labels": (([[DENSITY]], 2.0, ["a", "b"]), "row_labels must name 1 rows, got 2"),
    "column labels": (([[DENSITY]], 2.0, [], ["a", "b"]), "column_labels must name 1 columns"),
    "bound": (([[DENSITY]], 0.0), "bound must be above 0 and finite, got 0.0"),
    "no square": (([[plotting.Density(np.ones(5))]], 2.0), "square of points, got 5"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_tables_raise(case):
    arguments, message = WRONG[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        plotting.plane_table(*arguments)


def test_wrong_bounds_and_counts_raise():
    with pytest.raises(ValueError, match="got 0 and 3"):
        plane_points(0, 3)
    with pytest.raises(ValueError, match="got 2, 1 and 5"):
        grid_lines(2, 1, 5)
