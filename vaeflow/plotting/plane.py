"""Flows of the plane: tables of densities, samples and warped grids, and animated transport."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array, Float, UInt8

from vaeflow.plotting.style import LIGHT, Style, lab_to_rgb, new_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure


_PANEL = 1.75  # inches


@dataclasses.dataclass(frozen=True)
class Density:
    """A density over a square: a panel of `plane_table`.

    Attributes:
      values: At the points of `plane_points`, in any unit, shape [point * point]; values that
        aren't finite count as zero.
      caption: Text above it.
    """

    values: Float[Array | np.ndarray, "point"]
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class WarpedGrid:
    """Straight lines mapped by a transformation of the plane: a panel of `plane_table`.

    Attributes:
      lines: The images of the points of `grid_lines`, shape [line, point, 2].
      caption: Text above it.
    """

    lines: Float[Array | np.ndarray, "line point two"]
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Samples:
    """Points of the plane: a panel of `plane_table`.

    Attributes:
      points: The points, shape [point, 2]; those that aren't finite are left out.
      colors: Red, green and blue of each point, from 0 to 1, shape [point, 3], such as
        `noise_colors` gives; None for one colour.
      caption: Text above it.
    """

    points: Float[Array | np.ndarray, "point two"]
    colors: Float[np.ndarray, "point rgb"] | None = None
    caption: str = ""


Panel = Density | Samples | WarpedGrid


def plane_points(bound: float, size: int) -> Float[np.ndarray, "point two"]:
    """Returns the centres of size x size squares that fill [-bound, bound]^2, in rows from below.

    Args:
      bound: Half the side of the square.
      size: How many in a row, and how many rows.

    Raises:
      ValueError: If `bound` isn't positive or `size` isn't.
    """
    if not bound > 0 or size < 1:
        raise ValueError(f"bound must be above 0 and size at least 1, got {bound} and {size}")
    centers = bound * ((2 * np.arange(size) + 1) / size - 1)
    z1, z2 = np.meshgrid(centers, centers)
    return np.stack([z1, z2], axis=-1).reshape(-1, 2).astype(np.float32)


def grid_lines(
    bound: float, count: int = 15, points: int = 200
) -> Float[np.ndarray, "line point two"]:
    """Returns vertical lines, then as many horizontal ones, across [-bound, bound]^2.

    Args:
      bound: Half the side of the square.
      count: Number of lines in either direction.
      points: Number of points of a line.

    Returns:
      Points, float32, shape [2 * count, points, 2].

    Raises:
      ValueError: If `bound` isn't positive or there aren't two lines and points at least.
    """
    if not bound > 0 or count < 2 or points < 2:
        raise ValueError(
            f"bound must be above 0, count and points at least 2, got {bound}, {count} and {points}"
        )
    across, along = np.meshgrid(
        np.linspace(-bound, bound, count), np.linspace(-bound, bound, points), indexing="ij"
    )
    upright = np.stack([across, along], axis=-1)
    return np.concatenate([upright, upright[..., ::-1]]).astype(np.float32)


def plane_table(
    panels: Sequence[Sequence[Panel]],
    bound: float,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    names: tuple[str, str] = ("x1", "x2"),
    *,
    style: Style = LIGHT,
) -> Figure:
    """Plots a table of densities, samples and warped grids, all over [-bound, bound]^2.

    The shades of a row share one scale, which ends at the largest value of its first density, so
    that the densities of a row can be compared; larger values have the last shade too.
    Numbers stand along the axes of the left column and of the lowest row.

    Args:
      panels: Rows of equal length.
      bound: Half the side of the square of each panel; points beyond it are cut off.
      row_labels: One for each row, to its left, or none.
      column_labels: One for each column, above it, or none.
      names: Names of the two axes.
      style: Colours and sizes of text.

    Raises:
      ValueError: If rows differ in length, there are none, labels don't fit them, or `bound` isn't
        positive.
    """
    rows, columns = len(panels), len(panels[0]) if panels else 0
    if not columns or any(len(row) != columns for row in panels):
        lengths = [len(row) for row in panels]
        raise ValueError(f"panels must be rows of one length, above 0, got lengths {lengths}")
    for labels, count, name in ((row_labels, rows, "row"), (column_labels, columns, "column")):
        if labels and len(labels) != count:
            raise ValueError(f"{name}_labels must name {count} {name}s, got {len(labels)}")
    _check_bound(bound)
    captions = [any(panel.caption for panel in row) for row in panels]
    height = (_PANEL + 0.06) * rows + 0.17 * sum(captions) + 0.6
    figure = new_figure(style, (_PANEL * columns + 0.9, height))
    axes = figure.subplots(rows, columns, squeeze=False)
    for (place, row), row_axes in zip(enumerate(panels, start=1), axes, strict=True):
        largest = next((_largest(panel) for panel in row if isinstance(panel, Density)), 1.0)
        for panel, panel_axes in zip(row, row_axes, strict=True):
            outer = names[0] if place == rows else "", names[1] if panel_axes is row_axes[0] else ""
            _frame_plane(panel_axes, bound, outer, style)
            if isinstance(panel, Density):
                _draw_density(panel_axes, panel, bound, largest, style)
            elif isinstance(panel, Samples):
                color = style.palette[0] if panel.colors is None else panel.colors
                _draw_samples(panel_axes, panel.points, color, _PANEL)
            else:
                _draw_lines(panel_axes, panel, style)
            _write_caption(panel_axes, panel.caption, style)
    for label, row_axes in zip(row_labels, axes, strict=False):
        _label_row(row_axes[0], label, style)
    for label, panel_axes in zip(column_labels, axes[0], strict=False):
        # Above the captions.
        pad = 4 + captions[0] * 1.4 * style.small_font_size
        panel_axes.set_title(label, fontsize=style.font_size, color=style.text, pad=pad)
    return figure


def _largest(density: Density) -> float:
    return float(np.max(_finite(density))) or 1.0


def _finite(density: Density) -> np.ndarray:
    values = np.asarray(density.values, np.float64)
    return np.where(np.isfinite(values), values, 0.0)


def _check_bound(bound: float) -> None:
    if not 0 < bound < np.inf:
        raise ValueError(f"bound must be above 0 and finite, got {bound}")


def _frame_plane(axes: Axes, bound: float, names: tuple[str, str], style: Style) -> None:
    """Makes axes a panel over [-bound, bound]^2, with numbers along those that have a name."""
    axes.set_xlim(-bound, bound)
    axes.set_ylim(-bound, bound)
    axes.set_aspect("equal")
    # Zero and a round number, far enough from the ends not to run into those of the next panel.
    round_numbers = 10.0 ** np.floor(np.log10(bound)) * np.array([0.5, 1, 2, 5])
    step = round_numbers[round_numbers >= 0.3 * bound][0]
    ticks = step * np.floor(0.8 * bound / step) * np.array([-1, 0, 1])
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    axes.tick_params(bottom=bool(names[0]), labelbottom=bool(names[0]))
    axes.tick_params(left=bool(names[1]), labelleft=bool(names[1]))
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    style_axes(axes, style)


def _write_caption(axes: Axes, caption: str, style: Style) -> None:
    axes.annotate(
        caption,
        (0.5, 1),
        xycoords="axes fraction",
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=style.small_font_size,
        color=style.muted,
    )


def _label_row(axes: Axes, label: str, style: Style) -> None:
    """Writes a label upwards, to the left of the name of the axis."""
    axes.annotate(
        label,
        (0, 0.5),
        xycoords=axes.yaxis.label,
        xytext=(-4, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        rotation=90,
        fontsize=style.font_size,
        color=style.text,
    )


def _draw_density(axes: Axes, density: Density, bound: float, largest: float, style: Style) -> None:
    values = _finite(density)
    size = round(values.size**0.5)
    if size**2 != values.size:
        raise ValueError(f"values must be those of a square of points, got {values.size}")
    axes.imshow(
        values.reshape(size, size),
        cmap=style.density_map(),
        vmin=0,
        vmax=largest,
        origin="lower",
        extent=(-bound, bound, -bound, bound),
        interpolation="bilinear",
    )


def _draw_samples(
    axes: Axes,
    points: Float[Array | np.ndarray, "point two"],
    colors: Float[np.ndarray, "point rgb"] | str,
    side: float,
) -> PathCollection:
    """Draws points, the smaller the more there are, into a panel of `side` inches."""
    points = np.asarray(points)
    # The dots together have a quarter of the panel's area, within bounds of what is visible.
    size = np.clip(0.25 * (72 * side) ** 2 / max(len(points), 1), 0.8, 12)
    return axes.scatter(*points.T, s=size, c=colors, linewidths=0)


def _draw_lines(axes: Axes, grid: WarpedGrid, style: Style) -> None:
    lines = np.asarray(grid.lines)
    half = len(lines) // 2
    for part, color in zip((lines[:half], lines[half:]), style.palette[:2], strict=True):
        for line in part:
            axes.plot(*line.T, color=color, linewidth=0.6, alpha=0.8, solid_capstyle="butt")


_FRAME_PANEL = 2.0  # inches

_DPI = 100

# Of the disk in CIELAB that colours places in the noise: lightness at its centre and how much it
# falls towards red, and the distance of its edge from grey.
_LIGHTNESS, _TILT, _CHROMA = 55.0, 11.0, 50.0


def noise_colors(noise: Float[Array | np.ndarray, "point two"]) -> Float[np.ndarray, "point rgb"]:
    """Returns the colour of each point by its place in standard normal noise, for any background.

    Colours are those of a disk in CIELAB, grey at its centre, which the noise fills evenly: with
    the hue by the angle at 0, and the area within a point's radius that share of the noise that
    lies nearer to 0. Lightness rises from red to green, which so differ for readers who don't see
    these hues.
    """
    x, y = np.asarray(noise, np.float64).T
    radius = np.sqrt(-np.expm1(-(x**2 + y**2) / 2))
    angle = np.arctan2(y, x)
    across, up = radius * np.cos(angle), radius * np.sin(angle)
    lightness = _LIGHTNESS - _TILT * across
    return lab_to_rgb(np.stack([lightness, _CHROMA * across, _CHROMA * up], axis=-1))


def undo_axis_swaps(
    states: Float[Array | np.ndarray, "step point two"],
) -> Float[np.ndarray, "step point two"]:
    """Undoes the swaps of the two axes at the end of a flow's steps, for figures.

    From the last state back, the axes of a state are swapped where that brings its points nearer to
    those of the next state. A step that reverses the dimensions would otherwise seem to mirror the
    plane.
    """
    states = np.array(states)
    for step in range(len(states) - 2, -1, -1):
        state, swapped = states[step], states[step][:, ::-1]
        distances = [np.nanmean((s - states[step + 1]) ** 2) for s in (state, swapped)]
        if distances[1] < distances[0]:
            states[step] = swapped
    return states


def transport_frames(
    paths: Sequence[Float[Array | np.ndarray, "step point two"]],
    bound: float,
    titles: Sequence[str],
    between: int = 8,
    names: tuple[str, str] = ("x1", "x2"),
    *,
    style: Style = LIGHT,
) -> UInt8[np.ndarray, "frame height width rgb"]:
    """Renders the transport of points from noise to data, with a panel for each path.

    Points keep the colour of their place in the noise. Between two states they move in a straight
    line, slowly at both ends.

    Args:
      paths: Points after each step, noise first; all of one number of steps.
      bound: Half the side of the square of each panel.
      titles: One for each path.
      between: Number of frames from one state to the next.
      names: Names of the two axes.
      style: Colours and sizes of text.

    Raises:
      ValueError: If there is no path, paths differ in their number of steps, titles don't fit, or
        `bound` isn't positive.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    paths = [np.asarray(path) for path in paths]
    lengths = {len(path) for path in paths}
    if len(lengths) != 1 or len(titles) != len(paths) or between < 1:
        raise ValueError(
            f"paths must be some of one length, with a title each, and between at least 1, got "
            f"lengths {sorted(lengths)}, {len(paths)} paths, {len(titles)} titles and {between}"
        )
    _check_bound(bound)
    rows = -(-len(paths) // 3)
    columns = -(-len(paths) // rows)
    size = (_FRAME_PANEL * columns + 0.5, (_FRAME_PANEL + 0.2) * rows + 0.4)
    figure = new_figure(style, size, dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    dots = []
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for number, (path, title) in enumerate(zip(paths, titles, strict=True)):
        panel = axes[number]
        panel.set_title(title)
        lowest, left = number + columns >= len(paths), number % columns == 0
        _frame_plane(panel, bound, (names[0] if lowest else "", names[1] if left else ""), style)
        dots.append(_draw_samples(panel, path[0], noise_colors(path[0]), _FRAME_PANEL))
    for panel in axes[len(paths) :]:
        panel.set_axis_off()
    # Laid out once, so that nothing shifts between frames.
    for _ in range(2):
        canvas.draw()
    figure.set_layout_engine("none")
    frames = []
    for place in _places(len(paths[0]), between):
        step = min(int(place), len(paths[0]) - 2) if len(paths[0]) > 1 else 0
        for scatter, path in zip(dots, paths, strict=True):
            after = path[min(step + 1, len(path) - 1)]
            scatter.set_offsets(path[step] + (place - step) * (after - path[step]))
        canvas.draw()
        frames.append(np.array(canvas.buffer_rgba())[..., :3])
    return np.stack(frames)


def _places(states: int, between: int) -> np.ndarray:
    """Returns times between the states: integers at the states, with steps smaller near them."""
    share = np.arange(between) / between
    share = share**2 * (3 - 2 * share)
    return np.append((np.arange(states - 1)[:, None] + share).ravel(), states - 1)
