"""Checks of arrays that come from files.

Images become uint8, labels int32 and tables float32, or there is an error.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int32, UInt8


def check_images(
    array: np.ndarray, *, name: str
) -> UInt8[np.ndarray, "count height width channel"]:
    """Returns `array` as uint8 images of shape [count, height, width, channel].

    Whole numbers in 0..255 of any numeric type are taken, for that conversion loses nothing.

    Args:
      array: Shape [count, height, width] (grey) or [count, height, width, channel].
      name: What the array is, for error messages.

    Raises:
      ValueError: The type isn't numeric, a value isn't finite or isn't a whole number in 0..255,
        or the rank is wrong.
    """
    if array.ndim not in (3, 4) or 0 in array.shape[1:]:
        raise ValueError(
            f"{name}: shape {array.shape} isn't one of images; allowed are [count, height, width]"
            " and [count, height, width, channel]"
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
            f"{name}: shape {array.shape} doesn't fit {count} images; allowed ({count},)"
        )
    return _whole_numbers(array, 2**31 - 1, name=name, allowed="classes 0, 1, 2, ...").astype(
        np.int32
    )


def check_table(array: np.ndarray, *, name: str) -> Float32[np.ndarray, "row column"]:
    """Returns `array` as a float32 table of shape [row, column], of at least two rows.

    Args:
      array: Real numbers of any floating type. Whole numbers are refused, for no density of reals
        is one of them.
      name: What the array is, for error messages.

    Raises:
      ValueError: The type isn't floating, the rank is wrong, there are too few rows, or an entry
        isn't finite or is beyond float32.
    """
    if array.dtype.kind != "f":
        raise ValueError(
            f"{name}: dtype {array.dtype} isn't allowed; allowed are floating types, for a density"
            " is one of real numbers"
        )
    if array.ndim != 2 or not array.shape[1]:
        raise ValueError(
            f"{name}: shape {array.shape} isn't one of a table; allowed is [row, column]"
        )
    if len(array) < 2:
        raise ValueError(f"{name}: too few rows, {len(array)}; allowed are 2 or more")
    with np.errstate(over="ignore"):
        table = array.astype(np.float32)
    bad = ~np.isfinite(table)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"{name}: row {row}, column {column} (counted from 0) is {array[row, column]};"
            f" allowed are finite float32 numbers, which {bad.sum()} entries aren't"
        )
    return table


def _whole_numbers(array: np.ndarray, largest: int, *, name: str, allowed: str) -> np.ndarray:
    if array.dtype.kind not in "buif":
        raise ValueError(f"{name}: dtype {array.dtype} isn't allowed; allowed are {allowed}")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            raise ValueError(f"{name}: {bad} values aren't finite; allowed are {allowed}")
        if (array != np.floor(array)).any():
            raise ValueError(
                f"{name}: dtype {array.dtype} with fractions isn't allowed; allowed are {allowed}"
            )
    if array.size and (array.min() < 0 or array.max() > largest):
        raise ValueError(
            f"{name}: values {array.min()} to {array.max()} are out of range; allowed are {allowed}"
        )
    return array
