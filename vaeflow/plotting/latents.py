"""Latent spaces: scatter plots, manifolds and traversals."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy.stats
from jaxtyping import Array, Float, Int, UInt8

from vaeflow.plotting.images import ImageTable, as_pixels, draw_mosaic, drawn_pixels

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


def normal_quantiles(count: int) -> Float[np.ndarray, " count"]:
    """Lists values that part a standard normal: quantiles (i + 1/2) / n for i = 0, ..., n - 1.

    Raises:
      ValueError: If `count` isn't positive.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    return scipy.stats.norm.ppf((np.arange(count) + 0.5) / count)


def latent_grid(
    across: Float[np.ndarray, " column"], up: Float[np.ndarray, " row"]
) -> Float[np.ndarray, "row column two"]:
    """Lists the points of a grid as `manifold` shows them: z0 to the right, z1 upwards.

    Args:
      across: Values of z0, from left to right.
      up: Values of z1, from below.
    """
    return np.stack(np.meshgrid(across, up[::-1]), axis=-1).astype(np.float32)


def manifold(images: ImageTable, across: Sequence[float] = (), up: Sequence[float] = ()) -> Figure:
    """Draws images over a grid of two latents, side by side.

    Source: Kingma & Welling 2014, "Auto-encoding variational Bayes", figure 4.

    Args:
      images: uint8, shape [row, column, height, width, channel], decoded from `latent_grid`.
      across: The columns' values of z0; the first, middle and last are written above.
      up: The rows' values of z1, from below; likewise to the left.

    Raises:
      ValueError: If `images` aren't uint8 images, or there aren't as many values as columns or
        rows.
    """
    pixels = as_pixels(images, "images", 5)
    rows, columns = pixels.shape[:2]
    counts = len(up) or rows, len(across) or columns
    if counts != (rows, columns):
        raise ValueError(
            f"up and across must have one value a row and column, got {counts} for images of "
            f"shape {np.shape(images)}"
        )
    return draw_mosaic(pixels, _few(up[::-1], "z1"), _few(across, "z0"), gap=0)


def _few(values: Sequence[float], name: str) -> list[str]:
    """Labels of the first, the middle and the last value; the middle one names the latent."""
    labels = [""] * len(values)
    for index in {0, len(values) - 1, len(values) // 2} if len(values) else ():
        labels[index] = f"{values[index] + 0.0:.1f}"
    if labels:
        labels[len(values) // 2] = f"{name} = {labels[len(values) // 2]}"
    return labels


_FRAME_COLUMNS = 5


def traversals(
    images: ImageTable,
    names: Sequence[str],
    kl: Sequence[float] | None = None,
    values: Sequence[float | str] = (),
) -> Figure:
    """Draws images over the values of one latent, or one group of latents, in each row.

    Args:
      images: uint8, shape [latent, value, height, width, channel]: row i from latents that differ
        in the i-th alone.
      names: What to call the rows.
      kl: KL(q || p) of each row in nats, averaged over the data, to be written beside its name.
      values: The values of the columns where all rows have the same, to be written above them.

    Raises:
      ValueError: If `images` aren't uint8 images, or there aren't as many names, KLs or values as
        rows or columns.
    """
    pixels = as_pixels(images, "images", 5)
    rows, columns = pixels.shape[:2]
    counts = len(names), rows if kl is None else len(kl), len(values) or columns
    if counts != (rows, rows, columns):
        raise ValueError(
            f"names and kl must have one entry a row and values one a column, got {counts} for "
            f"images of shape {np.shape(images)}"
        )
    labels = list(names)
    if kl is not None:
        labels = [f"{name}, KL {nats:.2f} nats" for name, nats in zip(names, kl, strict=True)]
    headings = [value if isinstance(value, str) else f"{value:g}" for value in values]
    return draw_mosaic(pixels, labels, headings)


def traversal_frames(
    images: ImageTable, names: Sequence[str]
) -> UInt8[np.ndarray, "frame height width rgb"]:
    """Draws traversals as frames of an animation: an image for each latent, there and back.

    Args:
      images: uint8, shape [latent, value, height, width, channel], as for `traversals`.
      names: What to call the latents.

    Raises:
      ValueError: If `images` aren't uint8 images, or there isn't a name for each latent.
    """
    pixels = as_pixels(images, "images", 5)
    count = pixels.shape[1]
    if len(names) != len(pixels):
        raise ValueError(f"names must be {len(pixels)}, one a latent, got {len(names)}")
    order = [*range(count), *range(count - 2, 0, -1)]
    columns = min(len(pixels), _FRAME_COLUMNS)
    return np.stack([_frame(pixels[:, value], names, columns) for value in order])


def _frame(images: np.ndarray, names: Sequence[str], columns: int) -> np.ndarray:
    """Images of all latents in rows of `columns`, each under its name."""
    parts = []
    for start in range(0, len(images), columns):
        row, labels = images[start : start + columns], list(names[start : start + columns])
        missing = columns - len(row)
        blank = np.full((missing, *row.shape[1:]), 255, np.uint8)
        table = np.concatenate([row, blank])[None]
        parts.append(drawn_pixels(draw_mosaic(table, (), labels + [""] * missing)))
    return np.concatenate(parts)
