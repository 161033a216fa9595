"""Checks of the images given to metrics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


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
