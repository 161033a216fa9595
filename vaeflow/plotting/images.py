"""Grids of images: samples, reconstructions, interpolations, translations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Array, UInt8

from vaeflow.plotting.style import LIGHT, Style, new_figure, rgb_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text


_DPI = 100

_GAP = 4

_WIDE_GAP = 16

_MARGIN = 8

# The canvas that the images are enlarged to fill, and by how much at most.
_WIDTH = 1000

_HEIGHT = 1000

_LARGEST_SCALE = 8


def as_pixels(images: np.ndarray, name: str, ndim: int) -> np.ndarray:
    """Returns images as a numpy array with three channels.

    Args:
      images: uint8, shape [..., height, width, channel].
      name: Name of the images in errors.
      ndim: Number of axes that they must have.

    Raises:
      ValueError: If the type, the number of axes or the number of channels is wrong, or any axis is
        empty.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise ValueError(f"{name} must be uint8, got {images.dtype}")
    if images.ndim != ndim or images.shape[-1] not in (1, 3) or 0 in images.shape:
        raise ValueError(
            f"{name} must have {ndim} axes, none empty and the last of size 1 or 3, got shape"
            f" {images.shape}"
        )
    return np.broadcast_to(images, (*images.shape[:-1], 3))


def draw_mosaic(
    images: np.ndarray,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    wide_gap_after_row: int | None = None,
    wide_gap_after_column: int | None = None,
    gap: int = _GAP,
    *,
    style: Style,
) -> Figure:
    """Plots a table of images; labels of columns are upright where they would overlap.

    Args:
      images: uint8, shape [row, column, height, width, 3].
      row_labels: One for each row, to its left, or none.
      column_labels: One for each column, above it, or none.
      wide_gap_after_row: Which row is set off from those below it.
      wide_gap_after_column: Which column is set off from those to its right.
      gap: Screen pixels between images elsewhere.
      style: Colours and sizes of text.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    rows, columns, height, width, _ = images.shape
    fitting = min(_WIDTH // (columns * width), _HEIGHT // (rows * height), _LARGEST_SCALE)
    scale = max(1, fitting)
    tops = _starts(rows, height * scale, gap, wide_gap_after_row)
    lefts = _starts(columns, width * scale, gap, wide_gap_after_column)
    size = tops[-1] + height * scale, lefts[-1] + width * scale
    canvas = np.tile(rgb_bytes(style.background), (*size, 1))
    for row, top in enumerate(tops):
        for column, left in enumerate(lefts):
            pixels = images[row, column].repeat(scale, axis=0).repeat(scale, axis=1)
            canvas[top : top + height * scale, left : left + width * scale] = pixels

    figure = new_figure(style, dpi=_DPI, layout=None)
    renderer = FigureCanvasAgg(figure).get_renderer()

    def write(label: str, horizontal: str, vertical: str):
        place = {"ha": horizontal, "va": vertical, "ma": horizontal}
        return figure.text(0, 0, label, **place, fontsize=style.font_size, color=style.text)

    row_texts = [write(label, "right", "center") for label in row_labels]
    column_texts = [write(label, "center", "bottom") for label in column_labels]
    if _overlap(column_texts, lefts, renderer):
        for text in column_texts:
            text.set_rotation(90)
    row_widths = [text.get_window_extent(renderer).width for text in row_texts]
    boxes = [text.get_window_extent(renderer) for text in column_texts]
    # How far labels of columns reach beyond the images, to the left and to the right.
    middles = [left + width * scale / 2 for left in lefts]
    reach = [(box.width / 2, middle) for box, middle in zip(boxes, middles, strict=False)]
    before = math.ceil(max([0, *(half - middle for half, middle in reach)]))
    after = math.ceil(max([0, *(middle + half - size[1] for half, middle in reach)]))
    left_edge = math.ceil(max(row_widths) + 2 * _MARGIN) if row_widths else _GAP
    left_edge = max(left_edge, before + _GAP)
    top_edge = math.ceil(max(box.height for box in boxes) + 2 * _MARGIN) if boxes else _GAP
    total_width = left_edge + canvas.shape[1] + after + _GAP
    total_height = top_edge + canvas.shape[0] + _GAP
    figure.set_size_inches(total_width / _DPI, total_height / _DPI)
    for text, top in zip(row_texts, tops, strict=False):
        center = top_edge + top + height * scale / 2
        text.set_position(((left_edge - _MARGIN) / total_width, 1 - center / total_height))
    for text, left in zip(column_texts, lefts, strict=False):
        center = left_edge + left + width * scale / 2
        text.set_position((center / total_width, 1 - (top_edge - _MARGIN) / total_height))
    figure.figimage(canvas, xo=left_edge, yo=_GAP, origin="upper")
    return figure


def _overlap(texts: Sequence[Text], lefts: Sequence[int], renderer: Any) -> bool:
    """Returns whether labels over columns of equal width would touch or overlap."""
    places = [
        (left, text.get_window_extent(renderer).width)
        for left, text in zip(lefts, texts, strict=False)
        if text.get_text()
    ]
    return any(
        right - left < (width + next_width) / 2 + _GAP
        for (left, width), (right, next_width) in itertools.pairwise(places)
    )


def _starts(count: int, size: int, gap: int, wide_gap_after: int | None) -> list[int]:
    """Returns the start of each of `count` rows or columns of a size, in screen pixels."""
    gaps = [_WIDE_GAP if place == wide_gap_after else gap for place in range(count)]
    return [sum(gaps[:place]) + place * size for place in range(count)]


def rendered_pixels(figure: Figure) -> np.ndarray:
    """Renders a figure of `draw_mosaic`, uint8 of shape [height, width, 3]."""
    figure.canvas.draw()
    return np.array(figure.canvas.buffer_rgba())[..., :3]


Images = UInt8[Array | np.ndarray, "batch height width channel"]

ImageTable = UInt8[Array | np.ndarray, "row column height width channel"]


def image_grid(images: Images, columns: int | None = None, *, style: Style = LIGHT) -> Figure:
    """Plots images row by row.

    Args:
      images: uint8, shape [batch, height, width, channel].
      columns: How many in a row; by default the grid is about square.
      style: Colours and sizes of text.

    Raises:
      ValueError: If `images` aren't uint8 images or `columns` isn't positive.
    """
    pixels = as_pixels(images, "images", 4)
    count = len(pixels)
    if columns is None:
        columns = math.ceil(math.sqrt(count))
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    columns = min(columns, count)
    rows = -(-count // columns)
    table = np.tile(rgb_bytes(style.background), (rows * columns, *pixels.shape[1:3], 1))
    table[:count] = pixels
    return draw_mosaic(table.reshape(rows, columns, *pixels.shape[1:]), style=style)


def image_table(
    images: ImageTable,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    *,
    style: Style = LIGHT,
) -> Figure:
    """Plots a table of images, such as samples of several models, one in a row.

    Args:
      images: uint8, shape [row, column, height, width, channel].
      row_labels: One for each row, to its left, or none.
      column_labels: One for each column, above it, or none.
      style: Colours and sizes of text.

    Raises:
      ValueError: If `images` aren't uint8 images, or labels don't fit them.
    """
    pixels = as_pixels(images, "images", 5)
    rows, columns = pixels.shape[:2]
    counts = len(row_labels) or rows, len(column_labels) or columns
    if counts != (rows, columns):
        raise ValueError(
            f"labels must be one a row and one a column, got {counts} for images of shape "
            f"{np.shape(images)}"
        )
    return draw_mosaic(pixels, row_labels, column_labels, style=style)


def temperature_samples(
    images: ImageTable, temperatures: Sequence[float], *, style: Style = LIGHT
) -> Figure:
    """Plots samples, a row for each temperature.

    Args:
      images: uint8, shape [temperature, sample, height, width, channel].
      temperatures: The temperature of each row.
      style: Colours and sizes of text.

    Raises:
      ValueError: If `images` aren't uint8 images, or there aren't as many rows as temperatures.
    """
    pixels = as_pixels(images, "images", 5)
    if len(pixels) != len(temperatures):
        raise ValueError(
            f"images must have a row for each of {len(temperatures)} temperatures, got shape"
            f" {np.shape(images)}"
        )
    labels = [f"T = {temperature:g}" for temperature in temperatures]
    return draw_mosaic(pixels, labels, style=style)


def reconstructions(inputs: Images, outputs: Images, *, style: Style = LIGHT) -> Figure:
    """Plots images, their reconstructions, and the differences of the two.

    The differences ``|input - output|`` are brightened by a whole factor, which is written next to
    them with the largest difference, in levels of 255.

    Args:
      inputs: uint8, shape [batch, height, width, channel].
      outputs: uint8, of the same shape.
      style: Colours and sizes of text.

    Raises:
      ValueError: If the arrays aren't uint8 images of one shape.
    """
    if np.shape(inputs) != np.shape(outputs):
        raise ValueError(
            "inputs and outputs must have one shape, got"
            f" {np.shape(inputs)} and {np.shape(outputs)}"
        )
    before = as_pixels(inputs, "inputs", 4)
    after = as_pixels(outputs, "outputs", 4)
    difference = np.abs(before.astype(np.int16) - after).astype(np.uint8)
    largest = int(difference.max())
    factor = 255 // largest if largest else 1
    label = f"|difference|\nlargest {largest} of 255"
    if factor > 1:
        label += f"\nshown times {factor}"
    table = np.stack([before, after, difference * np.uint8(factor)])
    return draw_mosaic(table, ["input", "reconstruction", label], style=style)


def interpolations(
    images: ImageTable, labels: Sequence[str] = (), *, style: Style = LIGHT
) -> Figure:
    """Plots paths between pairs of real images, one in a row.

    Args:
      images: uint8, shape [path, step, height, width, channel], two steps or more: the first and
        the last of each path are the real ones and are marked so.
      labels: Names of the paths, or none.
      style: Colours and sizes of text.

    Raises:
      ValueError: If `images` aren't uint8 images or have fewer than two steps, or there isn't a
        label for each path.
    """
    pixels = as_pixels(images, "images", 5)
    steps = pixels.shape[1]
    if steps < 2:
        raise ValueError(f"images must have at least 2 steps, got shape {np.shape(images)}")
    if labels and len(labels) != len(pixels):
        raise ValueError(f"labels must name {len(pixels)} paths, got {len(labels)}")
    return draw_mosaic(pixels, labels, ["real", *[""] * (steps - 2), "real"], style=style)


def nearest_images(samples: Images, neighbors: ImageTable, *, style: Style = LIGHT) -> Figure:
    """Plots samples above the training images that are nearest to each.

    Args:
      samples: uint8, shape [sample, height, width, channel].
      neighbors: uint8, shape [sample, neighbor, height, width, channel], nearest first, such as
        ``train[vaeflow.metrics.nearest_neighbors(samples, train, num_neighbors=2)[0]]``.
      style: Colours and sizes of text.

    Raises:
      ValueError: If the arrays aren't uint8 images or their shapes don't match.
    """
    below = as_pixels(neighbors, "neighbors", 5)
    above = as_pixels(samples, "samples", 4)
    expected = (below.shape[0], *np.shape(neighbors)[2:])
    if np.shape(samples) != expected:
        raise ValueError(
            "neighbors must hold neighbours of each of the samples, got shapes"
            f" {np.shape(samples)} and {np.shape(neighbors)}"
        )
    table = np.concatenate([above[:, None], below], axis=1).swapaxes(0, 1)
    names = ["nearest\ntraining image", *[f"no. {n}" for n in range(2, below.shape[1] + 1)]]
    return draw_mosaic(table, ["sample", *names], wide_gap_after_row=0, style=style)


def translations(
    inputs: Images,
    outputs: ImageTable,
    styles: Images | None = None,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    *,
    style: Style = LIGHT,
) -> Figure:
    """Plots images, each followed by its translations.

    The inputs are a column to the left, and the images that the styles come from a row above.

    Args:
      inputs: uint8, shape [row, height, width, channel].
      outputs: uint8, shape [row, column, height, width, channel]: translations of the input of
        their row, in the style of their column where there are `styles`.
      styles: uint8, shape [column, height, width, channel], or None where styles are
        sampled. Inputs, outputs and styles may have different numbers of channels.
      row_labels: One for each input, to its left, or none.
      column_labels: One for each column of outputs, above it; by default the number of its style,
        counted from 1.
      style: Colours and sizes of text.

    Raises:
      ValueError: If the arrays aren't uint8 images or don't fit each other, or labels don't fit
        them.
    """
    before, after = as_pixels(inputs, "inputs", 4), as_pixels(outputs, "outputs", 5)
    rows, columns, *shape = after.shape
    if before.shape != (rows, *shape):
        raise ValueError(
            "inputs must be one for each row of outputs, of the same height and width, got shapes "
            f"{np.shape(inputs)} and {np.shape(outputs)}"
        )
    counts = len(row_labels) or rows, len(column_labels) or columns
    if counts != (rows, columns):
        raise ValueError(
            f"labels must be one a row and one a column, got {counts} for outputs of shape "
            f"{np.shape(outputs)}"
        )
    table = np.concatenate([before[:, None], after], axis=1)
    names = column_labels or [f"style {number}" for number in range(1, columns + 1)]
    headings = ["input", *names]
    if styles is None:
        return draw_mosaic(table, row_labels, headings, wide_gap_after_column=0, style=style)
    above = as_pixels(styles, "styles", 4)
    if above.shape != (columns, *shape):
        raise ValueError(
            "styles must be one for each column of outputs, of the same height and width, got "
            f"shapes {np.shape(styles)} and {np.shape(outputs)}"
        )
    corner = np.broadcast_to(rgb_bytes(style.background), (1, *shape))
    table = np.concatenate([np.concatenate([corner, above])[None], table])
    labels = ["style", *(row_labels or [""] * rows)]
    gaps = {"wide_gap_after_row": 0, "wide_gap_after_column": 0}
    return draw_mosaic(table, labels, headings, **gaps, style=style)
