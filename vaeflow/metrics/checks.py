"""Checks of the images and tables given to metrics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vaeflow.metrics.variances import NOISE_VARIANCE


def as_images(
    images: np.ndarray, name: str, *, least: int = 1, shape: Sequence[int] | None = None
) -> np.ndarray:
    """Returns images as an array after checking that they are uint8 of one known shape.

    Args:
      images: uint8, shape [batch, height, width, channel].
      name: What errors call them.
      least: How many images there must be.
      shape: The shape [height, width, channel] that each must have, or None for any.

    Raises:
      ValueError: If the type, the shape or the number of images is wrong.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise ValueError(f"{name} must be uint8, got {images.dtype}")
    if images.ndim != 4:
        raise ValueError(
            f"{name} must have shape [batch, height, width, channel], got {images.shape}"
        )
    if len(images) < least:
        raise ValueError(f"{name} must hold at least {least} images, got {len(images)}")
    if shape is not None and images.shape[1:] != tuple(shape):
        raise ValueError(f"{name} must have images of shape {tuple(shape)}, got {images.shape[1:]}")
    return images


def as_values(
    examples: np.ndarray, name: str, *, least: int = 1, shape: Sequence[int] | None = None
) -> tuple[np.ndarray, float]:
    """Returns what a density of reals sees of images or of a table, after checking them.

    Args:
      examples: uint8 images, shape [batch, height, width, channel], or a floating table, shape
        [row, column].
      name: What errors call them.
      least: How many there must be.
      shape: The shape that each must have, or None for any.

    Returns:
      float64 values: of a table as they are, of images the middle of each level's interval; and the
      variance of the noise in that interval, 0 for a table.

    Raises:
      ValueError: If the type, the shape or the number of examples is wrong, or an entry of a table
        isn't finite.
    """
    examples = np.asarray(examples)
    if examples.ndim != 2 or examples.dtype.kind != "f":
        return as_images(examples, name, least=least, shape=shape) + 0.5, NOISE_VARIANCE
    if len(examples) < least:
        raise ValueError(f"{name} must hold at least {least} rows, got {len(examples)}")
    if shape is not None and examples.shape[1:] != tuple(shape):
        raise ValueError(f"{name} must have rows of shape {tuple(shape)}, got {examples.shape[1:]}")
    if not np.isfinite(examples).all():
        raise ValueError(f"{name} must be finite, got {np.sum(~np.isfinite(examples))} that aren't")
    return examples.astype(np.float64), 0.0
