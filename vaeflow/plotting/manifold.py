"""Figures of all that two latents make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy.stats
from jaxtyping import Float

from vaeflow.plotting.images import ImageTable
from vaeflow.plotting.mosaic import as_pixels, draw_mosaic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
