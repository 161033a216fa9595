"""Training curves from the records of a run, and the use of the codes of quantizers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from vaeflow.plotting.style import LIGHT, Style, add_legend, new_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Of the points of a curve: as many or more are drawn faintly, under a running mean.
_MANY = 100


def training_curve(
    records: Iterable[Mapping[str, Any]],
    metrics: Mapping[str, str],
    expected: Mapping[str, float] | None = None,
    label: str = "bits/dim",
    *,
    style: Style = LIGHT,
) -> Figure:
    """Plots metrics against the training step.

    Long curves are faint, with their running mean over a fiftieth of their points. The vertical
    range leaves out the first tenth of the steps.

    Args:
      records: Records such as the lines of a run's `metrics.jsonl`: `step` and scalars by name. A
        record without one of the metrics, or where it isn't finite, is left out of that curve.
      metrics: Names of the curves in the legend, mapped to names of metrics in the records.
      expected: Values of horizontal lines by their names.
      label: Of the vertical axis, with the unit.
      style: Colours and sizes of text.

    Raises:
      ValueError: If no record holds any of the metrics.
    """
    records = list(records)
    curves = {name: _points(records, metric) for name, metric in metrics.items()}
    curves = {name: points for name, points in curves.items() if len(points)}
    if not curves:
        raise ValueError(
            f"metrics must name one that the records hold, got {sorted(metrics.values())}"
        )
    expected = dict(expected or {})
    figure = new_figure(style, (7.5, 4))
    axes = figure.add_subplot()
    for color, (name, points) in zip(itertools.cycle(style.palette), curves.items(), strict=False):
        _draw_curve(axes, points, name, color)
    low, high = _range([*curves.values()], [*expected.values()])
    axes.set_ylim(low, high)
    steps = [points[:, 0] for points in curves.values()]
    axes.set_xlim(min(map(np.min, steps)), max(map(np.max, steps)) + 1e-9)
    _draw_expected(axes, expected, style)
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=style.grid, linewidth=0.8)
    style_axes(axes, style)
    # Above the curves, which may run anywhere.
    add_legend(axes, style, loc="lower left", bbox_to_anchor=(0, 1), ncols=min(len(curves), 4))
    return figure


def _points(records: list[Mapping[str, Any]], metric: str) -> np.ndarray:
    """The steps and finite values of a metric, shape [point, 2]."""
    points = [
        (record["step"], record[metric])
        for record in records
        if record.get(metric) is not None and math.isfinite(record[metric])
    ]
    return np.array(points, dtype=float).reshape(-1, 2)


def _draw_curve(axes: Axes, points: np.ndarray, name: str, color: str) -> None:
    steps, values = points.T
    if len(points) < _MANY:
        marker = "o" if len(points) < _MANY // 2 else None
        axes.plot(steps, values, color=color, label=name, marker=marker, markersize=3.5)
        return
    axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
    window = len(points) // 50
    sums = np.cumsum(np.insert(values, 0, 0.0))
    means = (sums[window:] - sums[:-window]) / window
    middle = (steps[window - 1 :] + steps[: len(steps) - window + 1]) / 2
    axes.plot(middle, means, color=color, label=name)


def _range(curves: list[np.ndarray], expected: list[float]) -> tuple[float, float]:
    """Limits that show all but the start of the curves, and the expected values."""
    last = max(points[-1, 0] for points in curves)
    settled = [points[points[:, 0] >= last / 10, 1] for points in curves]
    values = np.concatenate([*settled, np.array(expected)])
    low, high = float(np.min(values)), float(np.max(values))
    margin = 0.06 * (high - low) or 0.1
    return low - margin, high + margin


def _draw_expected(axes: Axes, expected: Mapping[str, float], style: Style) -> None:
    """Plots horizontal lines, named to the right of the axes without overlap."""
    low, high = axes.get_ylim()
    distance = 0.055 * (high - low)
    height = -math.inf
    for name, value in sorted(expected.items(), key=lambda item: item[1]):
        axes.axhline(value, color=style.muted, linewidth=0.9, linestyle=(0, (4, 3)))
        height = max(value, height + distance)
        axes.annotate(
            f"{name} {value:.2f}",
            (1, height),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=style.muted,
            fontsize=style.small_font_size,
        )


def code_usage(counts: Mapping[str, Int[np.ndarray, " code"]], *, style: Style = LIGHT) -> Figure:
    """Plots how often each code was used, the most used first, a panel for each codebook.

    A line marks even use. The panel's title has the share of codes that are used at all and the
    perplexity, see `vaeflow.metrics.code_perplexity`.

    Args:
      counts: Counts of codes by the name of the codebook.
      style: Colours and sizes of text.

    Raises:
      ValueError: If there is no codebook, the counts of one aren't ``[code]``, or as
        `code_perplexity`.
    """
    from vaeflow.metrics import code_perplexity, live_codes

    if not counts:
        raise ValueError("counts must hold at least one codebook, got none")
    figure = new_figure(style, (7.5, 2.4 * len(counts) + 0.4))
    panels = figure.subplots(len(counts), 1, squeeze=False)[:, 0]
    for axes, (name, of_codes) in zip(panels, counts.items(), strict=True):
        if np.ndim(of_codes) != 1:
            raise ValueError(f"counts must be [code], got shape {np.shape(of_codes)} of {name}")
        used, perplexity = float(live_codes(of_codes)), float(code_perplexity(of_codes))
        shares = np.sort(of_codes)[::-1] / np.sum(of_codes)
        number = len(shares)
        axes.fill_between(
            np.arange(number + 1),
            np.append(shares, shares[-1]),
            step="post",
            color=style.palette[0],
            linewidth=0,
        )
        axes.axhline(1 / number, color=style.muted, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate(
            "even use",
            (number, 1 / number),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right",
            color=style.muted,
            fontsize=style.small_font_size,
        )
        axes.set_title(
            f"{name}: {used:.0%} of {number} codes used, perplexity {perplexity:.0f}",
            loc="left",
            fontsize=style.font_size,
            color=style.text,
        )
        axes.set_xlim(0, number)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("share of latents")
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("codes, the most used first")
        style_axes(axes, style)
    return figure
