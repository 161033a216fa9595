"""Convolutions of mirrored images, by indices and windows in float64."""

from __future__ import annotations

import numpy as np


def mirrored(length: int, size: int, stride: int) -> np.ndarray:
    """Positions that a convolution with a window of that size sees along an axis."""
    steps = -(-length // stride)
    total = max((steps - 1) * stride + size - length, 0)
    return np.pad(np.arange(length), (total // 2, total - total // 2), mode="reflect")


def valid_convolution(x: np.ndarray, kernel: np.ndarray, stride: int = 1) -> np.ndarray:
    """Sums of products over all windows that lie within the images."""
    x, kernel = np.float64(x), np.float64(kernel)
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
    return np.einsum("bhwcij,ijcf->bhwf", windows[:, ::stride, ::stride], kernel)


def reflected_convolution(x: np.ndarray, kernel: np.ndarray, stride: int = 1) -> np.ndarray:
    """The same of images that are mirrored at their edges."""
    rows, columns = (
        mirrored(length, size, stride)
        for length, size in zip(x.shape[1:3], kernel.shape[:2], strict=True)
    )
    return valid_convolution(np.asarray(x)[:, rows][:, :, columns], kernel, stride)
