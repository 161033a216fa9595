"""Figures of flows in one dimension."""

import numpy as np
import pytest

from vaeflow import plotting

X = np.linspace(-3, 3, 121)
DENSITY = np.exp(-0.5 * X**2) / np.sqrt(2 * np.pi)
EDGES = np.array([-0.7, 0.0, 0.7])


def areas(axes, across=0):
    """Area of each shaded piece."""
    result = []
    for piece in axes.collections:
        (path,) = piece.get_paths()
        x, y = path.vertices[:-1].T
        result.append(0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))
    return np.array(result)


@pytest.mark.parametrize("slope", [2.0, -0.5])
def test_intervals_keep_their_area_through_the_map(slope):
    y = slope * X + 1
    figure = plotting.change_of_variables((X, DENSITY), (y, DENSITY / abs(slope)), EDGES)
    left, middle, _, below = figure.axes
    noise, data = areas(below), areas(left)
    assert len(noise) == len(data) == 4
    np.testing.assert_allclose(noise.sum(), 0.9973, atol=1e-3)
    np.testing.assert_allclose(data if slope > 0 else data[::-1], noise, rtol=1e-3)
    np.testing.assert_allclose(middle.lines[0].get_xydata(), np.stack([X, y], -1))
    for line, edge in zip(middle.lines[1:], EDGES, strict=True):
        np.testing.assert_allclose(line.get_xdata(), [edge, edge, X[0]])
        np.testing.assert_allclose(line.get_ydata()[1:], slope * edge + 1, atol=1e-9)
    # The panels share their axes with the map.
    assert below.get_xlim() == middle.get_xlim()
    assert left.get_ylim() == middle.get_ylim()


def test_the_exact_density_is_drawn_too():
    figure = plotting.change_of_variables((X, DENSITY), (X, DENSITY), EDGES, (X, 3 * DENSITY))
    (line,) = figure.axes[0].lines
    np.testing.assert_allclose(line.get_xydata(), np.stack([3 * DENSITY, X], -1))
    assert figure.axes[0].get_xlim()[0] > 3 * DENSITY.max()  # it grows to the left
    legend = figure.axes[2].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["of f(z)", "exact"]


def test_each_step_has_a_panel_of_one_range():
    steps = [(X, DENSITY), (2 * X, DENSITY / 2), (1 - X, DENSITY * (X + 9))]
    figure = plotting.densities_by_step(steps, ["noise", "one", "two"], (X, DENSITY))
    assert [axes.get_title() for axes in figure.axes] == ["noise", "one", "two"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["after the step", "exact"]
    for axes, (values, density) in zip(figure.axes, steps, strict=True):
        curve, exact = axes.lines
        rising = np.argsort(values)
        np.testing.assert_allclose(curve.get_xydata(), np.stack([values, density], -1)[rising])
        np.testing.assert_allclose(exact.get_xydata(), np.stack([X, DENSITY], -1))
        assert axes.get_xlim() == (-3, 3)
        assert axes.get_ylim()[1] > 9 * DENSITY.max()
    seven = plotting.densities_by_step(steps[:1] * 7, list("abcdefg"))
    assert [len(axes.lines) for axes in seven.axes] == [1] * 7 + [0]
    # Names stand below and to the left of the outer panels, those over no other too.
    assert [axes.get_xlabel() for axes in seven.axes] == [""] * 3 + ["value"] * 4 + [""]
    assert [axes.get_ylabel() for axes in seven.axes] == ["density", *[""] * 3] * 2
    assert seven.legends == []
    seven.draw_without_rendering()
    below = [bool(axes.get_xticklabels()) for axes in seven.axes[:7]]
    assert below == [False] * 3 + [True] * 4


def test_mismatched_arrays_raise():
    with pytest.raises(ValueError, match=r"\(121,\), \(121,\), \(5,\), \(5,\)"):
        plotting.change_of_variables((X, DENSITY), (X[:5], DENSITY[:5]), EDGES)
    with pytest.raises(ValueError, match="got 1 and 2 titles"):
        plotting.densities_by_step([(X, DENSITY)], ["a", "b"])
    with pytest.raises(ValueError, match="got 0 and 0 titles"):
        plotting.densities_by_step([], [])
