"""Flows in one dimension: the change of variables, and the densities after each step."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array, Float

from vaeflow.plotting.style import LIGHT, Style, add_legend, new_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Opacity of areas, alternately.
_OPACITIES = (0.9, 0.4)

Values = Float[Array | np.ndarray, "point"]


def change_of_variables(
    noise: tuple[Values, Values],
    data: tuple[Values, Values],
    edges: Float[Array | np.ndarray, "edge"],
    exact: tuple[Values, Values] | None = None,
    *,
    style: Style = LIGHT,
) -> Figure:
    """Plots a map x = f(z) with the density of z below it and that of x to its left.

    Intervals between the edges, shaded alternately, are mapped from below through f to the left:
    where f is steep they widen and the density falls, where it is flat they narrow and the density
    rises, and the area over each is preserved.

    Args:
      noise: Rising values of z, and the density at them.
      data: The values x = f(z) of the same points, and the density at them.
      edges: Where along z the intervals meet; between equal quantiles of z they have equal areas.
      exact: Values of x and a density at them to compare with, plotted as a line, or None.
      style: Colours and sizes of text.

    Raises:
      ValueError: If values and densities differ in length.
    """
    from matplotlib.patches import Patch

    (z, z_density), (x, x_density) = (tuple(map(np.asarray, pair)) for pair in (noise, data))
    if len({np.shape(values) for values in (z, z_density, x, x_density)}) != 1 or z.ndim != 1:
        shapes = [np.shape(values) for values in (z, z_density, x, x_density)]
        raise ValueError(f"values and densities must have one shape [point], got {shapes}")
    edges = np.asarray(edges)
    images = np.interp(edges, z, x)
    figure = new_figure(style, (7, 6.4))
    color, of_exact = style.palette[:2]
    left, middle, corner, below = figure.subplots(
        2, 2, gridspec_kw={"width_ratios": (1, 2.4), "height_ratios": (2.4, 1)}
    ).ravel()
    corner.set_axis_off()
    z_range, x_range = (z[0], z[-1]), (np.min(x), np.max(x))

    middle.plot(z, x, color=style.text, linewidth=1.8)
    for edge, image in zip(edges, images, strict=True):
        line = [edge, edge, z[0]], [x_range[0], image, image]
        middle.plot(*line, color=style.muted, linewidth=0.5)
    middle.set(xlim=z_range, ylim=x_range)
    middle.set_title("x = f(z)")
    middle.tick_params(labelleft=False, labelbottom=False)

    _shade(below.fill_between, z, z_density, edges, color)
    below.set(xlim=z_range, ylim=(1.08 * np.max(z_density), 0))
    below.set_xlabel("noise z")
    below.set_ylabel("density of z")

    _shade(left.fill_betweenx, x, x_density, images, color)
    highest = np.max(x_density)
    if exact is not None:
        lines = left.plot(exact[1], exact[0], color=of_exact, linewidth=1.4)
        highest = max(highest, np.max(exact[1]))
        handles = [Patch(color=color, alpha=_OPACITIES[0], linewidth=0), *lines]
        add_legend(corner, style, handles, ["of f(z)", "exact"], loc="center")
    left.set(ylim=x_range, xlim=(1.08 * highest, 0))
    left.set_ylabel("data x")
    left.set_xlabel("density of x")
    for axes in (left, below, middle):
        style_axes(axes, style)
    return figure


def densities_by_step(
    steps: Sequence[tuple[Values, Values]],
    titles: Sequence[str],
    exact: tuple[Values, Values] | None = None,
    *,
    style: Style = LIGHT,
) -> Figure:
    """Plots the density after each step of a flow, all panels over the same range.

    Args:
      steps: Values after the step and the density at them, for each step.
      titles: One for each step.
      exact: Values and a density to compare with, plotted as a line in every panel, or None.
      style: Colours and sizes of text.

    Raises:
      ValueError: If there are no steps, or the titles don't fit.
    """
    if not steps or len(titles) != len(steps):
        raise ValueError(
            f"steps must be some, with a title each, got {len(steps)} and {len(titles)} titles"
        )
    rows = -(-len(steps) // 5)
    columns = -(-len(steps) // rows)
    figure = new_figure(style, (max(1.9 * columns + 0.7, 3.2), 1.6 * rows + 0.8))
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    color, of_exact = style.palette[:2]
    shown = steps if exact is None else [*steps, exact]
    highest = max(float(np.max(density)) for _, density in shown)
    low = min(float(np.min(values)) for values, _ in shown[-1:])
    high = max(float(np.max(values)) for values, _ in shown[-1:])
    for number, (values, density) in enumerate(steps):
        axes = panels[number]
        order = np.argsort(values)
        values, density = np.asarray(values)[order], np.asarray(density)[order]
        axes.fill_between(values, density, color=color, alpha=_OPACITIES[1], linewidth=0)
        lines = axes.plot(values, density, color=color, linewidth=1.2)
        if exact is not None:
            lines += axes.plot(*exact, color=of_exact, linewidth=1.2, linestyle=(0, (4, 2)))
        axes.set(xlim=(low, high), ylim=(0, 1.08 * highest))
        axes.set_title(titles[number])
        # The lowest panel of a column stands over nothing.
        lowest = number + columns >= len(steps)
        axes.tick_params(bottom=lowest, labelbottom=lowest, left=number % columns == 0)
        axes.set(xlabel="value" if lowest else "", ylabel="" if number % columns else "density")
        style_axes(axes, style)
    for axes in panels[len(steps) :]:
        axes.set_axis_off()
    if exact is not None:
        names = ["after the step", "exact"]
        add_legend(figure, style, lines, names, loc="outside upper center", ncols=2)
    return figure


def _shade(fill, values: np.ndarray, density: np.ndarray, edges: np.ndarray, color: str) -> None:
    """Fills the area under a density, alternately more and less opaque between the edges."""
    order = np.argsort(values)
    values, density = values[order], density[order]
    ends = np.sort(np.concatenate([[values[0]], edges, [values[-1]]]))
    for number, (start, end) in enumerate(itertools.pairwise(ends)):
        inside = values[(values > start) & (values < end)]
        place = np.concatenate([[start], inside, [end]])
        height = np.interp(place, values, density)
        fill(place, height, color=color, alpha=_OPACITIES[number % 2], linewidth=0)
