"""Rows of images on one canvas, each pixel a square of whole screen pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 100
_FONT_SIZE = 10
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
      name: What errors call them.
      ndim: How many axes they must have.

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
) -> Figure:
    """Draws a table of images.

    Args:
      images: uint8, shape [row, column, height, width, 3].
      row_labels: One for each row, to its left, or none.
      column_labels: One for each column, above it, or none.
      wide_gap_after_row: Which row is set off from those below it.
      wide_gap_after_column: Which column is set off from those to its right.
      gap: Screen pixels between images elsewhere.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns, height, width, _ = images.shape
    fitting = min(_WIDTH // (columns * width), _HEIGHT // (rows * height), _LARGEST_SCALE)
    scale = max(1, fitting)
    tops = _starts(rows, height * scale, gap, wide_gap_after_row)
    lefts = _starts(columns, width * scale, gap, wide_gap_after_column)
    canvas = np.full((tops[-1] + height * scale, lefts[-1] + width * scale, 3), 255, np.uint8)
    for row, top in enumerate(tops):
        for column, left in enumerate(lefts):
            pixels = images[row, column].repeat(scale, axis=0).repeat(scale, axis=1)
            canvas[top : top + height * scale, left : left + width * scale] = pixels

    figure = Figure(dpi=_DPI, facecolor="white")
    renderer = FigureCanvasAgg(figure).get_renderer()

    def write(label: str, horizontal: str, vertical: str):
        return figure.text(
            0, 0, label, ha=horizontal, va=vertical, ma=horizontal, fontsize=_FONT_SIZE
        )

    row_texts = [write(label, "right", "center") for label in row_labels]
    column_texts = [write(label, "center", "bottom") for label in column_labels]
    widths = [text.get_window_extent(renderer).width for text in row_texts]
    heights = [text.get_window_extent(renderer).height for text in column_texts]
    left_edge = math.ceil(max(widths) + 2 * _MARGIN) if widths else _GAP
    top_edge = math.ceil(max(heights) + 2 * _MARGIN) if heights else _GAP
    total_width = left_edge + canvas.shape[1] + _GAP
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


def _starts(count: int, size: int, gap: int, wide_gap_after: int | None) -> list[int]:
    """Where each of `count` rows or columns of a size begins, in screen pixels."""
    gaps = [_WIDE_GAP if place == wide_gap_after else gap for place in range(count)]
    return [sum(gaps[:place]) + place * size for place in range(count)]


def drawn_pixels(figure: Figure) -> np.ndarray:
    """What `draw_mosaic` has drawn, uint8 of shape [height, width, 3]."""
    figure.canvas.draw()
    return np.array(figure.canvas.buffer_rgba())[..., :3]
