"""Figures of images: samples, reconstructions, interpolations, neighbours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array, UInt8

from vaeflow.plotting.mosaic import as_pixels, draw_mosaic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Images = UInt8[Array | np.ndarray, "batch height width channel"]
ImageTable = UInt8[Array | np.ndarray, "row column height width channel"]


def image_grid(images: Images, columns: int | None = None) -> Figure:
    """Draws images row by row.

    Args:
      images: uint8, shape [batch, height, width, channel].
      columns: How many in a row; by default the grid is about square.

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
    table = np.full((rows * columns, *pixels.shape[1:]), 255, np.uint8)
    table[:count] = pixels
    return draw_mosaic(table.reshape(rows, columns, *pixels.shape[1:]))


def image_table(
    images: ImageTable, row_labels: Sequence[str] = (), column_labels: Sequence[str] = ()
) -> Figure:
    """Draws a table of images, such as samples of several models, one in a row.

    Args:
      images: uint8, shape [row, column, height, width, channel].
      row_labels: One for each row, to its left, or none.
      column_labels: One for each column, above it, or none.

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
    return draw_mosaic(pixels, row_labels, column_labels)


def temperature_samples(images: ImageTable, temperatures: Sequence[float]) -> Figure:
    """Draws samples, a row for each temperature.

    Args:
      images: uint8, shape [temperature, sample, height, width, channel].
      temperatures: The temperature of each row.

    Raises:
      ValueError: If `images` aren't uint8 images, or there aren't as many rows as temperatures.
    """
    pixels = as_pixels(images, "images", 5)
    if len(pixels) != len(temperatures):
        raise ValueError(
            f"images must have a row for each of {len(temperatures)} temperatures, got shape"
            f" {np.shape(images)}"
        )
    return draw_mosaic(pixels, [f"T = {temperature:g}" for temperature in temperatures])


def reconstructions(inputs: Images, outputs: Images) -> Figure:
    """Draws images, what a model made of them, and how the two differ.

    The differences ``|input - output|`` are brightened by a whole factor, which is written beside
    them with the largest difference, in levels of 255.

    Args:
      inputs: uint8, shape [batch, height, width, channel].
      outputs: uint8, of the same shape.

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
    return draw_mosaic(table, ["input", "reconstruction", label])


def interpolations(images: ImageTable, labels: Sequence[str] = ()) -> Figure:
    """Draws paths between pairs of real images, one in a row.

    Args:
      images: uint8, shape [path, step, height, width, channel], two steps or more: the first and
        the last of each path are the real ones and are marked so.
      labels: What to call each path, or none.

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
    return draw_mosaic(pixels, labels, ["real", *[""] * (steps - 2), "real"])


def nearest_images(samples: Images, neighbors: ImageTable) -> Figure:
    """Draws samples above the training images that are nearest to each.

    Args:
      samples: uint8, shape [sample, height, width, channel].
      neighbors: uint8, shape [sample, neighbor, height, width, channel], nearest first, such as
        ``train[vaeflow.metrics.nearest_neighbors(samples, train, count=2)[0]]``.

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
    return draw_mosaic(table, ["sample", *names], wide_gap_after_row=0)
