"""Arrays and the rows of a batch: checks of shapes, keys of rows, reductions over an axis.

An array has shape ``[*batch, *event]``; an event is what one density or log-determinant is of.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import yaml
from jaxtyping import Array

from vaeflow._util.checks import check_keys


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


def check_same_event(p: Any, q: Any) -> None:
    """Checks that two distributions are of events of one shape.

    Raises:
      ValueError: If they aren't; both shapes are quoted.
    """
    if p.event_shape != q.event_shape:
        raise ValueError(
            f"both must be of events of one shape, got {p.name} of {p.event_shape} and {q.name} "
            f"of {q.event_shape}"
        )


def sum_event(values: Array, event_ndims: int) -> Array:
    """Sums the trailing `event_ndims` axes in float32 or wider."""
    values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    return jnp.sum(values, axis=tuple(range(values.ndim - event_ndims, values.ndim)))


def compute_dtype(dtype: Any, *arrays: Array) -> Any:
    """Returns the type that a network computes in: `dtype`, or float64 for float64 arrays.

    Only float32 gives way to float64: a narrower type was asked for.
    """
    wide = any(array.dtype == jnp.float64 for array in arrays)
    return jnp.float64 if wide and dtype == jnp.float32 else dtype


def broadcasts_to(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Returns whether an array of `shape` broadcasts to exactly `target`."""
    try:
        return jnp.broadcast_shapes(shape, target) == target
    except ValueError:
        return False


def row_keys(rng: jax.Array, count: int) -> jax.Array:
    """Returns one key for each row of a batch.

    Noise sampled row by row doesn't depend on how the batch is divided between devices.

    Args:
      rng: One typed key, which is split, or an array of `count` typed keys, returned as it is.
      count: Number of rows.

    Returns:
      Typed keys of shape [count].

    Raises:
      ValueError: If `rng` isn't made of typed keys, or has neither of these shapes.
    """
    check_keys(rng)
    if rng.shape == ():
        return jax.random.split(rng, count)
    if rng.shape == (count,):
        return rng
    raise ValueError(f"rng must have shape () or ({count},), one key a row; got {rng.shape}")


PyTree = Any


@dataclasses.dataclass(frozen=True)
class Axis:
    """A batch axis that losses reduce over without knowing how it is divided.

    With ``name=None`` the full batch is local and each operation is the identity. With a name,
    the batch is divided over that mapped axis (`jax.pmap` or `jax.shard_map`), and the operations
    are the collectives that make a term coupled over the batch equal to the undivided one.

    Attributes:
      name: Name of the mapped axis, or None for an undivided batch.
    """

    name: str | None = None

    def sum(self, tree: PyTree) -> PyTree:
        """Sums each leaf over the axis."""
        return tree if self.name is None else jax.lax.psum(tree, self.name)

    def mean(self, tree: PyTree) -> PyTree:
        """Averages each leaf over the axis."""
        return tree if self.name is None else jax.lax.pmean(tree, self.name)

    def gather(self, tree: PyTree) -> PyTree:
        """Concatenates each leaf's rows, shape [rows, ...], from all members of the axis."""
        if self.name is None:
            return tree
        return jax.lax.all_gather(tree, self.name, axis=0, tiled=True)


def name_in_tables(kind: type) -> None:
    """Lets `flax.linen.tabulate` show a module's inputs and outputs of a class, by their names.

    Its cells are safe YAML, which otherwise takes numbers, strings, lists and dicts only.
    """
    yaml.SafeDumper.add_multi_representer(
        kind, lambda dumper, value: dumper.represent_str(type(value).__name__)
    )


LOCAL = Axis()
"""The axis of an undivided batch: every operation is the identity."""


def matmul(a: Array, b: Array) -> Array:
    """Multiplies in full precision; the bfloat16 of accelerators is too coarse to invert."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
