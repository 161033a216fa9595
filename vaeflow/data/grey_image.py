"""A single image as numbers."""

from __future__ import annotations

import pathlib

import numpy as np
from jaxtyping import Float

from vaeflow.data.image_files import read_image
from vaeflow.data.packages import package_file

CAMERA = "embedded:camera"
"""Stands for a photograph that scikit-image ships, 512 by 512 pixels."""


def read_grey_image(path: str) -> Float[np.ndarray, "row column"]:
    """Reads the brightness of each pixel of an image, from 0 to 1; row 0 is the top.

    Colours become grey by their luma (ITU-R BT.601).

    Args:
      path: An image file, or `embedded:camera` for a photographer, 512 by 512 pixels, that
        scikit-image ships.

    Raises:
      ValueError: The file is missing or can't be read as an image.
    """
    if path == CAMERA:
        file = package_file(path, "scikit-image", "skimage", "data/camera.png")
    else:
        file = pathlib.Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"image {path} is missing: no such file")
    try:
        pixels = read_image(file)
    except ValueError as error:
        raise ValueError(f"image {path} can't be read: {error}") from error
    channels = pixels.shape[-1]
    weights = np.array([0.299, 0.587, 0.114] if channels == 3 else [1.0])
    return (pixels @ weights / 255).astype(np.float32)
