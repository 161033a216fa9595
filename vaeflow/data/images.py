"""Validation, cropping and resizing of images."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8

from vaeflow._util.messages import shown


def check_images(
    array: np.ndarray, *, name: str
) -> UInt8[np.ndarray, "count height width channel"]:
    """Returns `array` as uint8 images of shape [count, height, width, channel].

    Whole numbers in 0..255 of any numeric type are taken, for that conversion loses nothing.

    Args:
      array: Shape [count, height, width] (grey) or [count, height, width, channel].
      name: Name of the array in errors.

    Raises:
      ValueError: The type isn't numeric, a value isn't finite or isn't a whole number in 0..255,
        or the rank is wrong.
    """
    if array.ndim not in (3, 4) or 0 in array.shape[1:]:
        raise ValueError(
            f"{name}: shape must be [count, height, width] or [count, height, width, channel], none"
            f" empty, got {shown(array.shape, 80)}"
        )
    array = _whole_numbers(array, 255, name=name, allowed="uint8 pixels, 0 to 255").astype(np.uint8)
    return array if array.ndim == 4 else array[..., np.newaxis]


def check_labels(array: np.ndarray, count: int, *, name: str) -> Int32[np.ndarray, " count"]:
    """Returns `array` as int32 labels, one for each of `count` images.

    Raises:
      ValueError: The length or rank is wrong, or a value isn't a whole number from 0 up.
    """
    if array.shape != (count,):
        raise ValueError(
            f"{name}: shape must be ({count},) for {count} images, got {shown(array.shape, 80)}"
        )
    return _whole_numbers(array, 2**31 - 1, name=name, allowed="classes 0, 1, 2, ...").astype(
        np.int32
    )


def check_table(array: np.ndarray, *, name: str) -> Float32[np.ndarray, "row column"]:
    """Returns `array` as a float32 table of shape [row, column], of at least two rows.

    Args:
      array: Real numbers of any floating type. Integers raise, as they have no density.
      name: Name of the array in errors.

    Raises:
      ValueError: The type isn't floating, the rank is wrong, there are too few rows, or a value
        isn't finite or is beyond float32.
    """
    if array.dtype.kind != "f":
        raise ValueError(
            f"{name}: dtype must be a floating one, for a density is one of real numbers, got"
            f" {array.dtype}"
        )
    if array.ndim != 2 or not array.shape[1]:
        raise ValueError(
            f"{name}: shape must be [row, column], with a column or more, got"
            f" {shown(array.shape, 80)}"
        )
    if len(array) < 2:
        raise ValueError(f"{name}: there must be 2 rows or more, got {len(array)}")
    with np.errstate(over="ignore"):
        table = array.astype(np.float32)
    bad = ~np.isfinite(table)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"{name}: values must be finite float32 numbers, got {array[row, column]} in row {row},"
            f" column {column} (counted from 0); {bad.sum()} aren't"
        )
    return table


def _whole_numbers(array: np.ndarray, largest: int, *, name: str, allowed: str) -> np.ndarray:
    if array.dtype.kind not in "buif":
        raise ValueError(f"{name}: values must be {allowed}, got dtype {array.dtype}")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            raise ValueError(f"{name}: values must be {allowed}, got {bad} that aren't finite")
        if (array != np.floor(array)).any():
            raise ValueError(
                f"{name}: values must be {allowed}, got fractions of dtype {array.dtype}"
            )
    if array.size and (array.min() < 0 or array.max() > largest):
        raise ValueError(f"{name}: values must be {allowed}, got {array.min()} to {array.max()}")
    return array


Crop = Literal["center", "celeba", "left", "right"]

_CELEBA_ALIGNED_SHAPE = (218, 178)


def check_crop(shape: tuple[int | None, ...], crop: Crop, *, name: str) -> None:
    """Raises a ValueError if images of `shape`, (height, width, ...), don't fit `crop`."""
    if crop == "celeba" and tuple(shape[:2]) != _CELEBA_ALIGNED_SHAPE:
        size = "of varying size" if None in shape[:2] else f"{shape[0]}x{shape[1]}"
        raise ValueError(
            f"crop='celeba': {name} must be an aligned CelebA image of 218 rows by 178 columns, got"
            f" {size}; crop='center' takes any size"
        )
    if crop in ("left", "right") and shape[1] == 1:
        raise ValueError(
            f"crop={crop!r}: {name} must have 2 columns or more, to have halves, got 1"
        )


def cropped_size(
    height: int | None, width: int | None, crop: Crop
) -> tuple[int | None, int | None]:
    """Returns the height and width that are left of an image that isn't resized."""
    if crop == "celeba":
        return 148, 148
    if crop in ("left", "right") and width is not None:
        width //= 2
    return height, width


def crop_and_resize(
    image: UInt8[np.ndarray, "height width channel"], image_size: int | None, crop: Crop
) -> UInt8[np.ndarray, "new_height new_width channel"]:
    """Crops an image and brings it to `image_size` by `image_size` pixels.

    ``center`` takes the largest centred square and resizes it with a bicubic filter that is
    widened when shrinking, so nothing aliases. ``left`` and ``right`` do so with that half of the
    image, for files that hold two images side by side; the central one of an odd number of columns
    is in neither. ``celeba`` is the protocol of RealNVP's bits/dim
    on CelebA (Dinh et al. 2017, section 4.1, and their published code): of the aligned image of
    218 rows and 178 columns, rows 40 to 187 and columns 15 to 162, hence 148 by 148, resized with
    plain bilinear interpolation of the four nearest pixels (half-pixel centres), *without*
    widening. A smoother filter would leave images that are easier to model, and figures that
    aren't comparable. The original adds dequantization noise to the resized floats; here they are
    first rounded to uint8, so that a likelihood of pixels exists.

    Args:
      image: Shape [height, width, channel].
      image_size: New height and width, or None to leave the image (with ``celeba``: the crop, with
        ``left`` and ``right``: the half) as it is.
      crop: ``center``, ``celeba``, ``left`` or ``right``.

    Raises:
      ValueError: ``celeba`` of an image that isn't 218 by 178, or a half of a single column.
    """
    check_crop(image.shape, crop, name="the image")
    if crop in ("left", "right"):
        half = cropped_size(*image.shape[:2], crop)[1]
        image = image[:, :half] if crop == "left" else image[:, -half:]
    if crop == "celeba":
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
