"""Checks that wrong shapes raise a `ValueError` that quotes the shape given and that expected."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from vaeflow.testing.case import Case, forward, inverse

Shape = tuple[int, ...]

_SHAPE = re.compile(r"\(\)|\(\d+,\)|\(\d+(?:, \d+)+\)")


def check_wrong_shapes(case: Case) -> None:
    """An event of the wrong shape raises a ValueError that quotes both shapes: no silent broadcast.

    A bijector may accept more shapes than that of the case. The output must then have as many
    numbers as the input, and one log-determinant.
    """
    bijector = case.singles[0]
    for direction, apply, event_shape, event_ndims_out in (
        ("forward", forward, case.event_shape, bijector.event_ndims_out),
        ("inverse", inverse, case.event_shape_out, bijector.event_ndims_in),
    ):
        function = functools.partial(jax.eval_shape, apply, bijector)
        if event_shape:
            _expect_rank_error(direction, function, event_shape[1:], event_shape)
        for shape in _wrong_shapes(event_shape):
            _expect_error_or_bijection(direction, function, shape, event_shape, event_ndims_out)


def _wrong_shapes(event_shape: Shape) -> Iterator[Shape]:
    for axis, size in enumerate(event_shape):
        for wrong in {1, size + 1} - {size}:
            yield (*event_shape[:axis], wrong, *event_shape[axis + 1 :])


def _expect_rank_error(
    direction: str, function: Callable, shape: Shape, event_shape: Shape
) -> None:
    wrong = (
        f"{direction} of an input of shape {shape}, which has fewer axes than an event of shape "
        f"{event_shape}"
    )
    message, result = _call(wrong, function, shape)
    if message is None:
        raise AssertionError(f"{wrong}: expected a ValueError, got an output of shape {result[0]}")
    if str(shape) not in message:
        raise AssertionError(
            f"{wrong}: expected a ValueError that quotes the shape {shape}, got {message!r}"
        )


def _expect_error_or_bijection(
    direction: str, function: Callable, shape: Shape, event_shape: Shape, event_ndims_out: int
) -> None:
    wrong = f"{direction} of an event of shape {shape} instead of {event_shape}"
    message, result = _call(wrong, function, shape)
    if message is None:
        output, log_det = result
        if math.prod(output) != math.prod(shape) or len(output) != event_ndims_out or log_det != ():
            raise AssertionError(
                f"{wrong}: expected a ValueError or as many numbers and one log-det, got an output "
                f"of shape {output} and a log-det of shape {log_det}"
            )
    elif not _quotes_both(message):
        raise AssertionError(
            f"{wrong}: expected a ValueError that quotes the shape given and the shape or size "
            f"that is allowed, got {message!r}"
        )


def _quotes_both(message: str) -> bool:
    # The expectation may be a rule, such as divisible by 2, where many shapes are accepted.
    rest, shapes = _SHAPE.subn(" ", message)
    return shapes >= 2 or (shapes == 1 and re.search(r"\b\d+\b", rest) is not None)


def _call(
    wrong: str, function: Callable, shape: Shape
) -> tuple[str | None, tuple[Shape, Shape] | None]:
    try:
        output, log_det = function(jax.ShapeDtypeStruct(shape, jnp.float32))
    except ValueError as error:
        return str(error), None
    except Exception as error:
        raise AssertionError(
            f"{wrong}: expected a ValueError, got {type(error).__name__}: {error}"
        ) from error
    return None, (output.shape, log_det.shape)
