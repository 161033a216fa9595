"""Crops and resizing, the same for every source that needs them."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8

Crop = Literal["center", "celeba"]

_CELEBA_ALIGNED_SHAPE = (218, 178)
CELEBA_CROP_SHAPE = (148, 148)


def check_crop(shape: tuple[int | None, ...], crop: Crop, *, name: str) -> None:
    """Raises a ValueError if images of `shape`, (height, width, ...), can't be cropped so."""
    if crop == "celeba" and tuple(shape[:2]) != _CELEBA_ALIGNED_SHAPE:
        size = "of varying size" if None in shape[:2] else f"{shape[0]}x{shape[1]}"
        raise ValueError(
            f"crop='celeba': {name} is {size} and not an aligned CelebA image; allowed"
            " are 218 rows by 178 columns, or crop='center'"
        )


def crop_and_resize(
    image: UInt8[np.ndarray, "height width channel"], image_size: int | None, crop: Crop
) -> UInt8[np.ndarray, "new_height new_width channel"]:
    """Crops an image and brings it to `image_size` by `image_size` pixels.

    ``center`` takes the largest centred square and resizes it with a bicubic filter that is
    widened when shrinking, so nothing aliases. ``celeba`` is the protocol of RealNVP's bits/dim
    on CelebA (Dinh et al. 2017, section 4.1, and their published code): of the aligned image of
    218 rows and 178 columns, rows 40 to 187 and columns 15 to 162, hence 148 by 148, resized with
    plain bilinear interpolation of the four nearest pixels (half-pixel centres), *without*
    widening. A smoother filter would leave images that are easier to model, and figures that
    aren't comparable. The original adds dequantization noise to the resized floats; here they are
    first rounded to uint8, so that a likelihood of pixels exists.

    Args:
      image: Shape [height, width, channel].
      image_size: New height and width, or None to leave the image (with ``celeba``: the crop) as
        it is.
      crop: ``center`` or ``celeba``.

    Raises:
      ValueError: ``celeba`` of an image that isn't 218 by 178.
    """
    if crop == "celeba":
        check_crop(image.shape, crop, name="the image")
        image = image[40:188, 15:163]
        return image if image_size is None else _bilinear(image, image_size)
    if image_size is None or image.shape[:2] == (image_size, image_size):
        return image
    return _antialiased(_center_square(image), image_size)


def center_crop(
    images: UInt8[np.ndarray, "*batch height width channel"], height: int, width: int
) -> UInt8[np.ndarray, "*batch new_height new_width channel"]:
    """Keeps the central `height` by `width` pixels; an odd row or column is lost at the end."""
    top = (images.shape[-3] - height) // 2
    left = (images.shape[-2] - width) // 2
    return images[..., top : top + height, left : left + width, :]


def _center_square(image: np.ndarray) -> np.ndarray:
    side = min(image.shape[:2])
    return center_crop(image, side, side)


def _antialiased(image: np.ndarray, image_size: int) -> np.ndarray:
    from PIL import Image

    grey = image.shape[2] == 1
    picture = Image.fromarray(np.ascontiguousarray(image[:, :, 0] if grey else image))
    pixels = np.asarray(picture.resize((image_size, image_size), Image.Resampling.BICUBIC))
    return pixels[:, :, np.newaxis] if grey else pixels


def _bilinear(image: np.ndarray, image_size: int) -> np.ndarray:
    rows = interpolation(image.shape[0], image_size)
    columns = interpolation(image.shape[1], image_size)
    values = np.einsum("ih,jw,hwc->ijc", rows, columns, image.astype(np.float64), optimize=True)
    return np.round(values).astype(np.uint8)


def interpolation(length: int, new_length: int) -> Float[np.ndarray, "new_length length"]:
    """Linear interpolation of `length` values at the centres of `new_length` equal cells."""
    centers = (np.arange(new_length) + 0.5) * length / new_length - 0.5
    centers = np.clip(centers, 0, length - 1)
    lower = np.floor(centers).astype(int)
    upper = np.minimum(lower + 1, length - 1)
    fraction = centers - lower
    weights = np.zeros((new_length, length))
    weights[np.arange(new_length), lower] += 1 - fraction
    weights[np.arange(new_length), upper] += fraction
    return weights
