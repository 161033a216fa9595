"""Large batches on small devices: a gradient taken part by part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any
Part = Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]


def divide(tree: PyTree, count: int) -> PyTree:
    """Divides the rows of each leaf into parts: [rows, ...] becomes [count, rows / count, ...].

    Part i has rows i, i + count, ..., so that where the rows are divided over devices each device
    keeps its own.

    Args:
      tree: Leaves that agree in their number of rows.
      count: Number of parts.

    Raises:
      ValueError: If the rows can't be divided so.
    """

    def divided(leaf: jax.Array) -> jax.Array:
        if leaf.shape[0] % count:
            raise ValueError(
                f"accumulate must divide the rows of a batch, got {count} for {leaf.shape[0]} rows"
            )
        return jnp.swapaxes(leaf.reshape(-1, count, *leaf.shape[1:]), 0, 1)

    return jax.tree.map(divided, tree)


def accumulate(function: Part, carry: PyTree, rows: PyTree, count: int) -> tuple[PyTree, PyTree]:
    """Calls `function(carry, part) -> (carry, value)` on each part of the rows, one after another.

    Memory is that of one part.

    Args:
      function: What to call.
      carry: What the first part is called with; its structure and types don't change.
      rows: Leaves of shape [rows, ...].
      count: Number of parts; with 1 the function is called once on all rows.

    Returns:
      The last carry, and the mean of the values over the parts.

    Raises:
      ValueError: If the rows can't be divided into that many parts.
    """
    if count == 1:
        return function(carry, rows)
    parts = divide(rows, count)
    first = jax.tree.map(lambda leaf: leaf[0], parts)
    shapes = jax.eval_shape(function, carry, first)[1]
    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)

    def step(before: tuple[PyTree, PyTree], part: PyTree) -> tuple[tuple[PyTree, PyTree], None]:
        carry, total = before
        carry, value = function(carry, part)
        return (carry, jax.tree.map(jnp.add, total, value)), None

    (carry, total), _ = jax.lax.scan(step, (carry, zeros), parts)
    return carry, jax.tree.map(lambda leaf: leaf / count, total)
