"""Figures of the latents of many examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array, Float, Int

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Paul Tol's "muted" colours, which readers of every kind of colour vision tell apart, and black.
_COLORS = (
    "#332288",
    "#cc6677",
    "#ddcc77",
    "#117733",
    "#88ccee",
    "#882255",
    "#44aa99",
    "#999933",
    "#aa4499",
    "#000000",
)
_OTHERS = "#c4c4c4"
_GREY = "#6b6b6b"
_PANEL = 4.4  # inches
_FONT_SIZE = 10
# Share of the points beyond either end of an axis.
_TAIL = 0.001


@dataclasses.dataclass(frozen=True)
class Cloud:
    """Two latents of many examples, as a panel of `aggregate_posterior`.

    Attributes:
      points: Samples of q(z | x), one of each example, or codes, shape [example, 2].
      groups: The group of each point, from 0 up, such as its label or its most probable component;
        None for points of one colour.
      kind: What a group is, for the legend.
      means: Centres of ellipses, such as those of a prior's components, shape [group, 2], or None.
      covariances: Their covariances, shape [group, 2, 2]; ellipses reach to two deviations. With
        groups each has the colour of its group.
      title: What to write above.
      names: What to call the two latents.
    """

    points: Float[Array | np.ndarray, "example two"]
    groups: Int[Array | np.ndarray, " example"] | None = None
    kind: str = "label"
    means: Float[Array | np.ndarray, "group two"] | None = None
    covariances: Float[Array | np.ndarray, "group two two"] | None = None
    title: str = ""
    names: tuple[str, str] = ("z0", "z1")


def aggregate_posterior(clouds: Sequence[Cloud]) -> Figure:
    """Draws the latents of a data set, coloured by what they belong to, side by side.

    Points of all examples are samples of (1/N) sum_n q(z | x_n), which a good model takes to p(z).
    The ten largest groups have colours, the others are grey. Axes show all but 0.1% of the points
    at each end.

    Args:
      clouds: The panels, from left to right.

    Raises:
      ValueError: If there are none, or arrays don't fit each other.
    """
    from matplotlib.figure import Figure

    if not clouds:
        raise ValueError("clouds must hold at least one, got none")
    for cloud in clouds:
        _check(cloud)
    figure = Figure(
        figsize=((_PANEL + 1.2) * len(clouds), _PANEL + 0.4),
        dpi=150,
        facecolor="white",
        layout="constrained",
    )
    for axes, cloud in zip(figure.subplots(1, len(clouds), squeeze=False)[0], clouds, strict=True):
        _draw(axes, cloud)
    return figure


def _check(cloud: Cloud) -> None:
    points, groups = np.shape(cloud.points), cloud.groups
    if len(points) != 2 or points[1] != 2 or not points[0]:
        raise ValueError(f"points must have shape [example, 2], none empty, got {points}")
    if groups is not None and np.shape(groups) != points[:1]:
        raise ValueError(f"groups must be {points[0]} numbers, got shape {np.shape(groups)}")
    means, covariances = cloud.means, cloud.covariances
    if means is None and covariances is None:
        return
    if np.ndim(means) != 2 or np.shape(covariances) != (*np.shape(means), 2):
        raise ValueError(
            "means and covariances must have shapes [group, 2] and [group, 2, 2], got "
            f"{np.shape(means)} and {np.shape(covariances)}"
        )


def _draw(axes: Axes, cloud: Cloud) -> None:
    points = np.asarray(cloud.points, np.float64)
    colors: dict[int, str] = {}
    drawn = np.full(len(points), _COLORS[0], object)
    if cloud.groups is not None:
        groups = np.asarray(cloud.groups)
        names, counts = np.unique(groups, return_counts=True)
        largest = np.sort(names[np.argsort(-counts, kind="stable")][: len(_COLORS)])
        colors = dict(zip(largest.tolist(), _COLORS, strict=False))
        drawn = np.array([colors.get(group, _OTHERS) for group in groups.tolist()], object)
        _draw_legend(axes, colors, len(names) - len(largest), cloud.kind)
    size = np.clip(20_000 / len(points), 3, 20)
    alpha = 0.5 if len(points) > 2000 else 0.8
    # As the examples come: no group lies over the others.
    axes.scatter(*points.T, s=size, c=drawn.tolist(), alpha=alpha, linewidths=0, rasterized=True)
    if cloud.means is not None:
        _draw_ellipses(axes, cloud, colors)
    for limit, values in ((axes.set_xlim, points[:, 0]), (axes.set_ylim, points[:, 1])):
        low, high = np.quantile(values[np.isfinite(values)], [_TAIL, 1 - _TAIL])
        margin = 0.06 * (high - low) or 0.5
        limit(low - margin, high + margin)
    axes.set_title(cloud.title, fontsize=_FONT_SIZE)
    axes.set_xlabel(cloud.names[0], fontsize=_FONT_SIZE)
    axes.set_ylabel(cloud.names[1], fontsize=_FONT_SIZE)
    axes.tick_params(labelsize=8, color=_GREY, labelcolor=_GREY)
    axes.set_box_aspect(1)
    for spine in axes.spines.values():
        spine.set_color("#c8c8c8")


def _draw_legend(axes: Axes, colors: dict[int, str], others: int, kind: str) -> None:
    from matplotlib.lines import Line2D

    entries = {str(group): color for group, color in colors.items()}
    if others:
        entries[f"{others} others"] = _OTHERS
    handles = [
        Line2D([], [], marker="o", linestyle="", color=color, markersize=6)
        for color in entries.values()
    ]
    axes.legend(
        handles,
        list(entries),
        title=kind,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
        fontsize=9,
        title_fontsize=9,
    )


def _draw_ellipses(axes: Axes, cloud: Cloud, colors: dict[int, str]) -> None:
    angles = np.linspace(0, 2 * np.pi, 100)
    circle = 2 * np.stack([np.cos(angles), np.sin(angles)])
    means, covariances = (np.asarray(a, np.float64) for a in (cloud.means, cloud.covariances))
    for group, (mean, covariance) in enumerate(zip(means, covariances, strict=True)):
        if colors and group not in colors:
            continue
        values, vectors = np.linalg.eigh(covariance)
        line = mean[:, None] + vectors @ (np.sqrt(np.maximum(values, 0))[:, None] * circle)
        color = colors.get(group, _GREY)
        axes.plot(*line, color="white", linewidth=3)
        axes.plot(*line, color=color, linewidth=1.4)
        axes.plot(*mean, marker="X", color=color, markeredgecolor="white", markersize=8)
