"""Shapes of batches and events: checks that quote both shapes, and sums over an event.

An array has shape ``[*batch, *event]``; an event is what one density or log-determinant is of.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array


def check_event_shape(name: str, got: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Checks the trailing axes of an array.

    Args:
      name: Name of the class that expects the event, for the message.
      got: Shape of the array, ``[*batch, *event]``.
      expected: Shape of an event.

    Raises:
      ValueError: If the trailing axes of `got` differ from `expected`; both are quoted.
    """
    if got[len(got) - len(expected) :] != tuple(expected):
        raise ValueError(
            f"{name}: expected events of shape {tuple(expected)}, got an array of shape {got}"
        )


def sum_event(values: Array, event_ndims: int) -> Array:
    """Sums the trailing `event_ndims` axes in float32 or wider."""
    values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    return jnp.sum(values, axis=tuple(range(values.ndim - event_ndims, values.ndim)))


def broadcasts_to(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Returns whether an array of `shape` broadcasts to exactly `target`."""
    try:
        return jnp.broadcast_shapes(shape, target) == target
    except ValueError:
        return False
