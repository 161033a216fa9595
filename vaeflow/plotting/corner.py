"""Corner plots: the marginals of each dimension and of each pair, of data and of samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array, Float

from vaeflow.plotting.style import LIGHT, Style, add_legend, new_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_PANEL = 1.5  # inches

_BINS = 30

_MOST_POINTS = 2000

# Share of the data beyond either end of an axis.
_TAIL = 0.005


def pairwise_marginals(
    data: Float[Array | np.ndarray, "row column"],
    samples: Float[Array | np.ndarray, "sample column"],
    labels: Sequence[str] = (),
    *,
    style: Style = LIGHT,
) -> Figure:
    """Plots every pair of columns: data below the diagonal, samples of a model above it.

    On the diagonal are the histograms of each column, of data and of samples. Axes show the central
    99% of the data and a margin; the panels of a column share its axis. At most the first 2,000
    rows are plotted as points.

    Args:
      data: The data.
      samples: Samples of the model.
      labels: Names of the columns; by default their numbers, counted from 0.
      style: Colours and sizes of text.

    Raises:
      ValueError: If the tables have different numbers of columns, fewer than two of them or no
        rows, or the labels don't fit.
    """
    data, samples = np.asarray(data, np.float64), np.asarray(samples, np.float64)
    if data.ndim != 2 or samples.ndim != 2 or data.shape[1] != samples.shape[1]:
        raise ValueError(
            f"data and samples must be tables of equal columns, got {data.shape}, {samples.shape}"
        )
    columns = data.shape[1]
    if columns < 2 or not len(data) or not len(samples):
        raise ValueError(
            f"data and samples must have rows and two columns or more, got {data.shape} and "
            f"{samples.shape}"
        )
    labels = labels or [f"column {column}" for column in range(columns)]
    if len(labels) != columns:
        raise ValueError(f"labels must name {columns} columns, got {len(labels)}")
    limits = [_limits(values) for values in data.T]
    size = _PANEL * columns + 0.5
    figure = new_figure(style, (size, size))
    of_data, of_samples = style.palette[:2]
    all_axes = figure.subplots(columns, columns)
    for (row, column), axes in np.ndenumerate(all_axes):
        _frame(axes, limits[column])
        if row == column:
            _plot_histograms(axes, (data[:, row], samples[:, row]), limits[row], style)
        else:
            axes.set_ylim(*limits[row])
            table, color = (data, of_data) if row > column else (samples, of_samples)
            _plot_points(axes, table[:, column], table[:, row], color)
        if row == columns - 1:
            axes.set_xlabel(labels[column])
            axes.tick_params(bottom=True, labelbottom=True)
        if column == 0:
            axes.set_ylabel(labels[row])
            axes.tick_params(left=row > 0, labelleft=row > 0)
        style_axes(axes, style)
    figure.align_ylabels(all_axes[:, 0])
    handles = [all_axes[0, 0].patches[0], all_axes[0, 0].patches[1]]
    names = ["data", "samples"]
    add_legend(figure, style, handles, names, loc="outside upper center", ncols=2)
    return figure


def _limits(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [_TAIL, 1 - _TAIL])
    margin = 0.08 * (high - low) or 0.5
    return float(low - margin), float(high + margin)


def _frame(axes: Axes, limits: tuple[float, float]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(*limits)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(3))
    axes.tick_params(left=False, labelleft=False, bottom=False, labelbottom=False)


def _plot_histograms(
    axes: Axes,
    tables: tuple[np.ndarray, np.ndarray],
    limits: tuple[float, float],
    style: Style,
) -> None:
    edges = np.linspace(*limits, _BINS + 1)
    width = edges[1] - edges[0]
    # Shares of all values, those beyond the limits included.
    shares = [np.histogram(v, edges)[0] / (len(v) * width) for v in tables]
    axes.stairs(shares[0], edges, fill=True, color=style.palette[0], alpha=0.35)
    axes.stairs(shares[1], edges, color=style.palette[1], linewidth=1.2)
    axes.set_ylim(0, 1.1 * max(map(np.max, shares)) or 1.0)
    axes.set_yticks([])


def _plot_points(axes: Axes, x: np.ndarray, y: np.ndarray, color: str) -> None:
    x, y = x[:_MOST_POINTS], y[:_MOST_POINTS]
    alpha = 0.5 if len(x) <= _MOST_POINTS // 4 else 0.25
    axes.plot(x, y, "o", color=color, markersize=1.8, markeredgewidth=0, alpha=alpha)
