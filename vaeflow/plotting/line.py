"""Flows in one dimension: the change of variables, and the densities after each step."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array, Float

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHADES = ("#1f5a96", "#9cc3e4")
_LINE = "#0b2440"
_EXACT = "#d1662a"
_GREY = "#6b6b6b"
_FONT_SIZE = 10

Values = Float[Array | np.ndarray, "point"]


def change_of_variables(
    noise: tuple[Values, Values],
    data: tuple[Values, Values],
    edges: Float[Array | np.ndarray, "edge"],
    exact: tuple[Values, Values] | None = None,
) -> Figure:
    """Plots a map y = f(x) with the density of x below it and that of y to its left.

    Intervals between the edges, shaded alternately, are mapped from below through f to the left:
    where f is steep they widen and the density falls, where it is flat they narrow and the density
    rises, and the area over each is preserved.

    Args:
      noise: Rising values of x, and the density at them.
      data: The values y = f(x) of the same points, and the density at them.
      edges: Where along x the intervals meet; between equal quantiles of x they have equal areas.
      exact: Values of y and a density at them to compare with, plotted as a line, or None.

    Raises:
      ValueError: If values and densities differ in length.
    """
    from matplotlib.figure import Figure

    (x, x_density), (y, y_density) = (tuple(map(np.asarray, pair)) for pair in (noise, data))
    if len({np.shape(values) for values in (x, x_density, y, y_density)}) != 1 or x.ndim != 1:
        shapes = [np.shape(values) for values in (x, x_density, y, y_density)]
        raise ValueError(f"values and densities must have one shape [point], got {shapes}")
    edges = np.asarray(edges)
    images = np.interp(edges, x, y)
    figure = Figure(figsize=(7, 6.4), dpi=150, facecolor="white", layout="constrained")
    left, middle, corner, below = figure.subplots(
        2, 2, gridspec_kw={"width_ratios": (1, 2.4), "height_ratios": (2.4, 1)}
    ).ravel()
    corner.set_axis_off()
    x_range, y_range = (x[0], x[-1]), (np.min(y), np.max(y))

    middle.plot(x, y, color=_LINE, linewidth=1.8)
    for edge, image in zip(edges, images, strict=True):
        middle.plot([edge, edge, x[0]], [y_range[0], image, image], color=_GREY, linewidth=0.5)
    middle.set(xlim=x_range, ylim=y_range)
    middle.set_title("y = f(x)", fontsize=_FONT_SIZE)
    middle.tick_params(labelleft=False, labelbottom=False)

    _shade(below.fill_between, x, x_density, edges)
    below.set(xlim=x_range, ylim=(1.08 * np.max(x_density), 0))
    below.set_xlabel("noise x", fontsize=_FONT_SIZE)
    below.set_ylabel("density of x", fontsize=_FONT_SIZE)

    _shade(left.fill_betweenx, y, y_density, images)
    highest = np.max(y_density)
    if exact is not None:
        left.plot(exact[1], exact[0], color=_EXACT, linewidth=1.2, label="exact")
        highest = max(highest, np.max(exact[1]))
        left.legend(loc="upper left", fontsize=_FONT_SIZE - 2, frameon=False)
    left.set(ylim=y_range, xlim=(1.08 * highest, 0))
    left.set_ylabel("data y", fontsize=_FONT_SIZE)
    left.set_xlabel("density of y", fontsize=_FONT_SIZE)
    for axes in (left, below, middle):
        axes.tick_params(labelsize=_FONT_SIZE - 2, colors=_GREY)
        _thin(axes)
    return figure


def densities_by_step(
    steps: Sequence[tuple[Values, Values]],
    titles: Sequence[str],
    exact: tuple[Values, Values] | None = None,
) -> Figure:
    """Plots the density after each step of a flow, all panels over the same range.

    Args:
      steps: Values after the step and the density at them, for each step.
      titles: One for each step.
      exact: Values and a density to compare with, plotted as a line in every panel, or None.

    Raises:
      ValueError: If there are no steps, or the titles don't fit.
    """
    from matplotlib.figure import Figure

    if not steps or len(titles) != len(steps):
        raise ValueError(
            f"steps must be some, with a title each, got {len(steps)} and {len(titles)} titles"
        )
    columns = min(len(steps), 5)
    rows = -(-len(steps) // columns)
    figure = Figure(
        figsize=(1.9 * columns + 0.5, 1.6 * rows + 0.3),
        dpi=150,
        facecolor="white",
        layout="constrained",
    )
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    shown = steps if exact is None else [*steps, exact]
    highest = max(float(np.max(density)) for _, density in shown)
    low = min(float(np.min(values)) for values, _ in shown[-1:])
    high = max(float(np.max(values)) for values, _ in shown[-1:])
    for axes, (values, density), title in zip(panels, steps, titles, strict=False):
        order = np.argsort(values)
        values, density = np.asarray(values)[order], np.asarray(density)[order]
        axes.fill_between(values, density, color=_SHADES[1], linewidth=0)
        axes.plot(values, density, color=_SHADES[0], linewidth=1.2)
        if exact is not None:
            axes.plot(*exact, color=_EXACT, linewidth=1, linestyle=(0, (4, 2)))
        axes.set(xlim=(low, high), ylim=(0, 1.08 * highest))
        axes.set_title(title, fontsize=_FONT_SIZE)
        axes.tick_params(labelsize=_FONT_SIZE - 2, colors=_GREY)
        _thin(axes)
    for axes in panels[len(steps) :]:
        axes.set_axis_off()
    return figure


def _shade(fill, values: np.ndarray, density: np.ndarray, edges: np.ndarray) -> None:
    """Fills the area under a density, alternately light and dark between the edges."""
    order = np.argsort(values)
    values, density = values[order], density[order]
    ends = np.sort(np.concatenate([[values[0]], edges, [values[-1]]]))
    for number, (start, end) in enumerate(itertools.pairwise(ends)):
        inside = values[(values > start) & (values < end)]
        place = np.concatenate([[start], inside, [end]])
        height = np.interp(place, values, density)
        fill(place, height, color=_SHADES[number % 2], linewidth=0)


def _thin(axes: Axes) -> None:
    for spine in axes.spines.values():
        spine.set_color("#c8c8c8")
        spine.set_linewidth(0.6)
