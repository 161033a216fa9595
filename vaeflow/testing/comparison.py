"""Comparisons that say what is wrong, what was expected, what was got, and on which input."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import ArrayLike

Shape = tuple[int, ...]


def expect_close(
    what: str, got: ArrayLike, expected: ArrayLike, tolerance: float, *, inputs: ArrayLike
) -> None:
    """Compares values row by row.

    Args:
      what: What is compared, for the message.
      got: Values of shape ``[batch, ...]``.
      expected: Values that `got` should have.
      tolerance: Absolute and relative tolerance.
      inputs: What the values came from, of shape ``[batch, ...]``.

    Raises:
      AssertionError: If shapes differ, or any value by more than the tolerance, or isn't finite.
    """
    got, expected = to_numpy(got), to_numpy(expected)
    if got.shape != expected.shape:
        raise AssertionError(f"{what}: expected shape {expected.shape}, got shape {got.shape}")
    wrong = ~(np.isfinite(got) & np.isclose(got, expected, rtol=tolerance, atol=tolerance))
    if not wrong.any():
        return
    finite = np.isfinite(got) & np.isfinite(expected)
    error = np.abs(np.subtract(got, expected, where=finite, out=np.full(got.shape, np.inf)))
    worst = np.unravel_index(np.argmax(np.where(wrong, error, -1.0)), got.shape)
    raise AssertionError(
        f"{what}: expected {expected[worst]:.7g}, got {got[worst]:.7g}{_at(worst)} "
        f"({wrong.sum()} of {wrong.size} values differ by more than {tolerance:g}), "
        f"on input {show(to_numpy(inputs)[worst[0]])}"
    )


def expect_finite(what: str, got: ArrayLike, *, inputs: ArrayLike) -> None:
    """Requires that every value is finite.

    Raises:
      AssertionError: If a value is infinite or not a number.
    """
    got = to_numpy(got)
    wrong = ~np.isfinite(got)
    if wrong.any():
        worst = np.unravel_index(np.argmax(wrong), got.shape)
        raise AssertionError(
            f"{what}: expected finite values, got {got[worst]}{_at(worst)} "
            f"({wrong.sum()} of {wrong.size} values), on input {show(inputs)}"
        )


def show(values: ArrayLike) -> str:
    """A short text of an array: its shape and its first numbers."""
    values = to_numpy(values)
    numbers = ", ".join(f"{value:.6g}" for value in values.ravel()[:6])
    more = ", ..." if values.size > 6 else ""
    return f"of shape {values.shape} [{numbers}{more}]"


def to_numpy(values: ArrayLike) -> np.ndarray:
    """The values on the host, in float64."""
    return np.asarray(jax.device_get(values)).astype(np.float64)


def _at(index: Shape) -> str:
    return f" at index {tuple(int(i) for i in index)}" if index else ""
