"""Latent spaces: scatter plots of the aggregate posterior, manifolds and traversals."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from vaeflow.plotting.images import ImageTable, as_pixels, draw_mosaic, rendered_pixels
from vaeflow.plotting.style import LIGHT, Style, add_legend, new_figure, rgb_bytes, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_PANEL = 4.4  # inches

# Share of the points beyond either end of an axis.
_TAIL = 0.001


@dataclasses.dataclass(frozen=True)
class LatentScatter:
    """Two latents of many examples: a panel of `aggregate_posterior`.

    Attributes:
      points: Samples of q(z | x), one of each example, or codes, shape [example, 2].
      groups: The group of each point, from 0 up, such as its label or its most probable component;
        None for points of one colour.
      kind: Title of the legend, such as "label".
      means: Centres of ellipses, such as those of a prior's components, shape [group, 2], or None.
      covariances: Their covariances, shape [group, 2, 2]; ellipses reach to two deviations. With
        groups each has the colour of its group.
      title: Title of the panel.
      names: Names of the two latents.
    """

    points: Float[Array | np.ndarray, "example two"]
    groups: Int[Array | np.ndarray, " example"] | None = None
    kind: str = "label"
    means: Float[Array | np.ndarray, "group two"] | None = None
    covariances: Float[Array | np.ndarray, "group two two"] | None = None
    title: str = ""
    names: tuple[str, str] = ("z0", "z1")


def aggregate_posterior(panels: Sequence[LatentScatter], *, style: Style = LIGHT) -> Figure:
    """Plots the latents of a data set, coloured by group, in panels side by side.

    The points of all examples are samples of the aggregate posterior (1/N) sum_n q(z | x_n), which
    is near p(z) for a good model.
    The largest groups have the colours of the style, as many as it has, the others that of its
    frame. Axes show all but 0.1% of the points at each end.

    Args:
      panels: The panels, from left to right.
      style: Colours and sizes of text.

    Raises:
      ValueError: If there are none, or arrays don't fit each other.
    """
    if not panels:
        raise ValueError("panels must hold at least one, got none")
    for panel in panels:
        _check(panel)
    # With room for numbers, and for legends.
    width = sum(_PANEL + (0.3 if panel.groups is None else 1.2) for panel in panels)
    figure = new_figure(style, (width, _PANEL + 0.4))
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _plot(axes, panel, style)
    return figure


def _check(panel: LatentScatter) -> None:
    points, groups = np.shape(panel.points), panel.groups
    if len(points) != 2 or points[1] != 2 or not points[0]:
        raise ValueError(f"points must have shape [example, 2], none empty, got {points}")
    if groups is not None and np.shape(groups) != points[:1]:
        raise ValueError(f"groups must be {points[0]} numbers, got shape {np.shape(groups)}")
    means, covariances = panel.means, panel.covariances
    if means is None and covariances is None:
        return
    if np.ndim(means) != 2 or np.shape(covariances) != (*np.shape(means), 2):
        raise ValueError(
            "means and covariances must have shapes [group, 2] and [group, 2, 2], got "
            f"{np.shape(means)} and {np.shape(covariances)}"
        )


def _plot(axes: Axes, panel: LatentScatter, style: Style) -> None:
    points = np.asarray(panel.points, np.float64)
    colors: dict[int, str] = {}
    point_colors = np.full(len(points), style.palette[0], object)
    if panel.groups is not None:
        groups = np.asarray(panel.groups)
        names, counts = np.unique(groups, return_counts=True)
        largest = np.sort(names[np.argsort(-counts, kind="stable")][: len(style.palette)])
        colors = dict(zip(largest.tolist(), style.palette, strict=False))
        point_colors = np.array(
            [colors.get(group, style.frame) for group in groups.tolist()], object
        )
        _plot_legend(axes, colors, len(names) - len(largest), panel.kind, style)
    size = np.clip(20_000 / len(points), 3, 20)
    alpha = 0.5 if len(points) > 2000 else 0.8
    # In the order of the examples, so that no group covers the others.
    axes.scatter(
        *points.T, s=size, c=point_colors.tolist(), alpha=alpha, linewidths=0, rasterized=True
    )
    if panel.means is not None:
        _plot_ellipses(axes, panel, colors, style)
    for limit, values in ((axes.set_xlim, points[:, 0]), (axes.set_ylim, points[:, 1])):
        low, high = np.quantile(values[np.isfinite(values)], [_TAIL, 1 - _TAIL])
        margin = 0.06 * (high - low) or 0.5
        limit(low - margin, high + margin)
    axes.set_title(panel.title)
    axes.set_xlabel(panel.names[0])
    axes.set_ylabel(panel.names[1])
    axes.set_box_aspect(1)
    style_axes(axes, style)


def _plot_legend(axes: Axes, colors: dict[int, str], others: int, kind: str, style: Style) -> None:
    from matplotlib.lines import Line2D

    legend = {str(group): color for group, color in colors.items()}
    if others:
        legend[f"{others} others"] = style.frame
    handles = [
        Line2D([], [], marker="o", linestyle="", color=color, markersize=6)
        for color in legend.values()
    ]
    place = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
    add_legend(axes, style, handles, list(legend), title=kind, **place)


def _plot_ellipses(axes: Axes, panel: LatentScatter, colors: dict[int, str], style: Style) -> None:
    angles = np.linspace(0, 2 * np.pi, 100)
    circle = 2 * np.stack([np.cos(angles), np.sin(angles)])
    means, covariances = (np.asarray(a, np.float64) for a in (panel.means, panel.covariances))
    for group, (mean, covariance) in enumerate(zip(means, covariances, strict=True)):
        if colors and group not in colors:
            continue
        values, vectors = np.linalg.eigh(covariance)
        line = mean[:, None] + vectors @ (np.sqrt(np.maximum(values, 0))[:, None] * circle)
        color = colors.get(group, style.muted)
        axes.plot(*line, color=style.background, linewidth=3)
        axes.plot(*line, color=color, linewidth=1.4)
        mark = {"marker": "X", "markersize": 8, "markeredgecolor": style.background}
        axes.plot(*mean, color=color, **mark)


def normal_quantiles(count: int) -> Float[np.ndarray, " count"]:
    """Returns the quantiles (i + 1/2) / n, i = 0, ..., n - 1, of a standard normal.

    Raises:
      ValueError: If `count` isn't positive.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    from scipy import stats

    return stats.norm.ppf((np.arange(count) + 0.5) / count)


def latent_grid(
    across: Float[np.ndarray, " column"], up: Float[np.ndarray, " row"]
) -> Float[np.ndarray, "row column two"]:
    """Returns the points of a grid as `latent_manifold` shows them: z0 to the right, z1 upwards.

    Args:
      across: Values of z0, from left to right.
      up: Values of z1, from below.
    """
    return np.stack(np.meshgrid(across, up[::-1]), axis=-1).astype(np.float32)


def latent_manifold(
    images: ImageTable,
    across: Sequence[float] = (),
    up: Sequence[float] = (),
    *,
    style: Style = LIGHT,
) -> Figure:
    """Plots images decoded from a grid of two latents.

    Source: Kingma & Welling 2014, "Auto-encoding variational Bayes", figure 4.

    Args:
      images: uint8, shape [row, column, height, width, channel], decoded from `latent_grid`.
      across: The columns' values of z0; the first, central and last are written above.
      up: The rows' values of z1, from below; likewise to the left.
      style: Colours and sizes of text.

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
    return draw_mosaic(pixels, _few(up[::-1], "z1"), _few(across, "z0"), gap=0, style=style)


def _few(values: Sequence[float], name: str) -> list[str]:
    """Returns labels of the first, central and last values, the central one with the name."""
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
    *,
    style: Style = LIGHT,
) -> Figure:
    """Plots latent traversals: in each row, images over the values of one latent or group.

    Args:
      images: uint8, shape [latent, value, height, width, channel]: row i from latents that differ
        in the i-th alone.
      names: Names of the rows.
      kl: KL(q || p) of each row in nats, averaged over the data, written next to its name.
      values: Headings of the columns: the values, where all rows have the same.
      style: Colours and sizes of text.

    Raises:
      ValueError: If `images` aren't uint8 images, or there aren't as many names, KLs or values as
        rows or columns.
    """
    pixels = as_pixels(images, "images", 5)
    rows, columns = pixels.shape[:2]
    counts = len(names), rows if kl is None else len(kl), len(values) or columns
    if counts != (rows, rows, columns):
        raise ValueError(
            f"names and kl must have one element a row and values one a column, got {counts} for "
            f"images of shape {np.shape(images)}"
        )
    labels = list(names)
    if kl is not None:
        labels = [f"{name}, KL {nats:.2f} nats" for name, nats in zip(names, kl, strict=True)]
    headings = [value if isinstance(value, str) else f"{value:g}" for value in values]
    return draw_mosaic(pixels, labels, headings, style=style)


def traversal_frames(
    images: ImageTable, names: Sequence[str], *, style: Style = LIGHT
) -> UInt8[np.ndarray, "frame height width rgb"]:
    """Renders traversals as frames of an animation: an image for each latent, there and back.

    Args:
      images: uint8, shape [latent, value, height, width, channel], as for `traversals`.
      names: Names of the latents.
      style: Colours and sizes of text.

    Raises:
      ValueError: If `images` aren't uint8 images, or there isn't a name for each latent.
    """
    pixels = as_pixels(images, "images", 5)
    count = pixels.shape[1]
    if len(names) != len(pixels):
        raise ValueError(f"names must be {len(pixels)}, one a latent, got {len(names)}")
    order = [*range(count), *range(count - 2, 0, -1)]
    columns = min(len(pixels), _FRAME_COLUMNS)
    return np.stack([_frame(pixels[:, value], names, columns, style) for value in order])


def _frame(images: np.ndarray, names: Sequence[str], columns: int, style: Style) -> np.ndarray:
    """Images of all latents in rows of `columns`, each under its name."""
    parts = []
    for start in range(0, len(images), columns):
        row, labels = images[start : start + columns], list(names[start : start + columns])
        missing = columns - len(row)
        blank = np.broadcast_to(rgb_bytes(style.background), (missing, *row.shape[1:]))
        table = np.concatenate([row, blank])[None]
        figure = draw_mosaic(table, (), labels + [""] * missing, style=style)
        parts.append(rendered_pixels(figure))
    return np.concatenate(parts)
