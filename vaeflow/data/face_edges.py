"""Edges of faces: line drawings of the embedded faces, made from their gradients."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from scipy import ndimage

from vaeflow.data.arrays import array_part
from vaeflow.data.dataset import Dataset
from vaeflow.data.embedded import read_faces
from vaeflow.data.splits import make_splits

_SCALE = 0.5  # standard deviation of the Gaussian derivatives, in pixels
_NEIGHBOURHOOD = 4.0  # that of the mean that a gradient is compared with, in pixels
_FLOOR = 0.02  # per pixel: where nothing is steeper than this, grey levels from 0 to 1, is no edge
_WHITE, _BLACK = 0.8, 1.8  # gradients relative to that mean


def open_face_edges(name: str, fold: int) -> Dataset:
    """Draws the edges of ``embedded:faces``, 24 by 24 by 1, in their order and folds."""
    images = draw_edges(read_faces(name))
    splits = make_splits({"train": array_part(images)}, fold, name=name)
    return Dataset(name=name, shape=images.shape[1:], classes=None, **splits)


def draw_edges(
    images: UInt8[np.ndarray, "batch height width 1"],
) -> UInt8[np.ndarray, "batch height width 1"]:
    """Draws the edges of grey images, dark on white.

    With g the magnitude of the gradient (derivatives of a Gaussian of 0.5 pixels, grey levels from
    0 to 1) and m its mean in the neighbourhood (a Gaussian of 4 pixels), a pixel is white up to
    g / (m + 0.02) = 0.8, black from 1.8 on, and linear between: soft lines, of faint faces too.

    Raises:
      ValueError: If the images aren't grey, or not uint8.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 1:
        raise ValueError(
            f"images: {images.dtype} of shape {images.shape} isn't allowed; allowed is uint8 of "
            "shape (batch, height, width, 1)"
        )
    grey = images[..., 0] / 255
    down = ndimage.gaussian_filter(grey, (0, _SCALE, _SCALE), order=(0, 1, 0))
    right = ndimage.gaussian_filter(grey, (0, _SCALE, _SCALE), order=(0, 0, 1))
    gradient = np.hypot(down, right)
    mean = ndimage.gaussian_filter(gradient, (0, _NEIGHBOURHOOD, _NEIGHBOURHOOD))
    darkness = (gradient / (mean + _FLOOR) - _WHITE) / (_BLACK - _WHITE)
    return np.round(255 * (1 - np.clip(darkness, 0, 1))).astype(np.uint8)[..., np.newaxis]
