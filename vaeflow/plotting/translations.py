"""Figures of images translated from one domain to another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vaeflow.plotting.images import Images, ImageTable
from vaeflow.plotting.mosaic import as_pixels, draw_mosaic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def translations(
    inputs: Images,
    outputs: ImageTable,
    styles: Images | None = None,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
) -> Figure:
    """Draws images, each followed by what it was translated to.

    The inputs are in a column of their own, and the images whose styles the translations take in a
    row of their own above them.

    Args:
      inputs: uint8, shape [row, height, width, channel].
      outputs: uint8, shape [row, column, height, width, channel]: translations of the input of
        their row, in the style of their column where there are `styles`.
      styles: uint8, shape [column, height, width, channel], or None where styles are drawn at
        random. Inputs, outputs and styles may have different numbers of channels.
      row_labels: One for each input, to its left, or none.
      column_labels: One for each column of outputs, above it, or none.

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
    headings = ["input", *(column_labels or [""] * columns)]
    if styles is None:
        return draw_mosaic(table, row_labels, headings, wide_gap_after_column=0)
    above = as_pixels(styles, "styles", 4)
    if above.shape != (columns, *shape):
        raise ValueError(
            "styles must be one for each column of outputs, of the same height and width, got "
            f"shapes {np.shape(styles)} and {np.shape(outputs)}"
        )
    corner = np.full((1, *shape), 255, np.uint8)
    table = np.concatenate([np.concatenate([corner, above])[None], table])
    labels = ["style", *(row_labels or [""] * rows)]
    return draw_mosaic(table, labels, headings, wide_gap_after_row=0, wide_gap_after_column=0)
