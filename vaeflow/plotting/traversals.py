"""Figures of what each latent does to an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from vaeflow.plotting.images import ImageTable
from vaeflow.plotting.mosaic import as_pixels, draw_mosaic, drawn_pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
