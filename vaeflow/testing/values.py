"""Checks of values: round trips, log-determinants by the Jacobian, shapes and precision."""

from __future__ import annotations

from collections.abc import Callable

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vaeflow.testing.case import BATCH, Case, both_ways, forward, inverse
from vaeflow.testing.pytrees import expect_close, to_numpy

ROUNDED_TOLERANCE = 0.1
"""Tolerance of log-determinants, in nats, where values are rounded to bfloat16 on the way."""

RETURN_TOLERANCE = 0.5
"""Relative error of a point that comes back: generous, since far out rounding is magnified."""

NEGLIGIBLE = -10.0
"""Log-determinant, in nats, below which a point may be rounded away."""


def check_log_det_shape(case: Case) -> None:
    """Log-determinants have the batch shape of their input, and both directions agree on events."""
    bijector, size = case.batched, int(np.prod(case.event_shape))
    if bijector.event_ndims_in != len(case.event_shape):
        raise AssertionError(
            f"event_ndims_in: expected {len(case.event_shape)} for event shape {case.event_shape}, "
            f"got {bijector.event_ndims_in}"
        )
    x_shape = (BATCH, *case.event_shape)
    y = _expect_shapes("forward", forward, bijector, x_shape, None)
    event_out = y[1:]
    if (
        y[0] != BATCH
        or len(event_out) != bijector.event_ndims_out
        or int(np.prod(event_out)) != size
    ):
        raise AssertionError(
            f"forward of an input of shape {x_shape}: expected a batch axis of {BATCH} and "
            f"{bijector.event_ndims_out} event axes (event_ndims_out) that hold {size} numbers, "
            f"got shape {y}"
        )
    _expect_shapes("inverse", inverse, bijector, y, x_shape)


def _expect_shapes(
    name: str,
    direction: Callable,
    bijector: distrax.Bijector,
    shape: tuple[int, ...],
    expected: tuple[int, ...] | None,
) -> tuple[int, ...]:
    example = jax.ShapeDtypeStruct(shape, jnp.float32)
    output, log_det = jax.eval_shape(direction, bijector, example)
    if log_det.shape != (BATCH,):
        raise AssertionError(
            f"{name} log-det of an input of shape {shape}: expected shape {(BATCH,)}, "
            f"got shape {log_det.shape}"
        )
    if expected is not None and output.shape != expected:
        raise AssertionError(
            f"{name} of an input of shape {shape}: expected shape {expected}, "
            f"got shape {output.shape}"
        )
    return output.shape


def check_round_trip(case: Case) -> None:
    """inverse(forward(x)) = x and forward(inverse(y)) = y."""
    returned, _ = case.evaluate(case.batched, case.outputs.x, case.outputs.y)
    expect_close("inverse(forward(x))", returned.x, case.x, case.tolerance, inputs=case.x)
    expect_close("forward(inverse(y))", returned.y, case.y, case.tolerance, inputs=case.y)


def check_log_det(case: Case) -> None:
    """Log-determinants are those of the Jacobian by automatic differentiation, sign included."""
    to_y, to_x = case.jacobians
    _expect_log_det(case, "forward", case.outputs.forward_log_det, to_y, case.x)
    _expect_log_det(case, "inverse", case.outputs.inverse_log_det, to_x, case.y)


def _expect_log_det(
    case: Case, direction: str, got: Array, jacobians: Array, inputs: Array
) -> None:
    got = to_numpy(got)
    sign, expected = np.linalg.slogdet(to_numpy(jacobians))
    what = f"{direction} log-det against the Jacobian"
    if np.any(sign == 0):
        row = int(np.argmin(np.abs(sign)))
        raise AssertionError(
            f"{what}: the Jacobian is singular on input {to_numpy(inputs[row]).ravel()[:6]}"
        )
    close = {"rtol": case.tolerance, "atol": case.tolerance}
    if not np.allclose(got, expected, **close) and np.allclose(got, -expected, **close):
        what = f"{what}: the sign is wrong"
    expect_close(what, got, expected, case.tolerance, inputs=inputs)


def check_log_det_symmetry(case: Case) -> None:
    """The log-determinant of the inverse is minus that of forward at the matching point."""
    returned, _ = case.evaluate(case.batched, case.outputs.x, case.outputs.y)
    expect_close(
        "inverse log-det at forward(x) against minus the forward log-det at x",
        returned.inverse_log_det,
        -case.outputs.forward_log_det,
        case.tolerance,
        inputs=case.x,
    )
    expect_close(
        "forward log-det at inverse(y) against minus the inverse log-det at y",
        returned.forward_log_det,
        -case.outputs.inverse_log_det,
        case.tolerance,
        inputs=case.y,
    )


def check_low_precision(case: Case) -> None:
    """Log-determinants of bfloat16 input are float32 or wider, in their type and in their values.

    Where the values of the bijector come out in float32 its log-determinant has to be that of the
    same input in float32; where they are rounded on the way, near it.
    """
    x, y = case.x.astype(jnp.bfloat16), case.y.astype(jnp.bfloat16)
    low = jax.jit(both_ways)(case.batched, x, y)
    high, _ = case.evaluate(case.batched, x.astype(jnp.float32), y.astype(jnp.float32))
    for direction, got, expected, values, inputs in (
        ("forward", low.forward_log_det, high.forward_log_det, low.y, x),
        ("inverse", low.inverse_log_det, high.inverse_log_det, low.x, y),
    ):
        if not jnp.issubdtype(got.dtype, jnp.floating) or jnp.finfo(got.dtype).bits < 32:
            raise AssertionError(
                f"{direction} log-det: expected float32 or wider for bfloat16 input, "
                f"got {got.dtype}, on input of shape {inputs.shape}"
            )
        tolerance = 10 * case.tolerance if jnp.finfo(values.dtype).bits >= 32 else ROUNDED_TOLERANCE
        expect_close(
            f"{direction} log-det of bfloat16 input against the same input in float32",
            got,
            expected,
            tolerance,
            inputs=inputs,
        )


def check_range(case: Case) -> None:
    """An input of the inverse comes back by forward, or the log-determinant of the inverse is -inf.

    Otherwise a clipped value would pass for a density outside the range of forward. A point of so
    small a density that forward rounds it away passes too.
    """
    for edge in case.inverse_edges:
        y = jnp.broadcast_to(jnp.asarray(edge, case.y.dtype), case.y.shape)
        outputs, _ = case.evaluate(case.batched, case.x, y)
        returned = case.evaluate(case.batched, outputs.x, y)[0].y
        off = to_numpy(jnp.abs(returned - y) / (1 + jnp.abs(y))).reshape(BATCH, -1)
        log_det = to_numpy(outputs.inverse_log_det)
        wrong = ~np.all(off <= RETURN_TOLERANCE, axis=1) & ~(log_det < NEGLIGIBLE)
        if np.any(wrong):
            row = int(np.argmax(wrong))
            raise AssertionError(
                f"expected forward to return {to_numpy(y[row]).ravel()[:6]}, or an inverse "
                f"log-det of -inf; got {to_numpy(returned[row]).ravel()[:6]} and {log_det[row]}"
            )
