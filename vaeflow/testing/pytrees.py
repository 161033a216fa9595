"""Pytrees of arrays: floating-point leaves, and comparison with readable messages."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike


def is_float(leaf: Any) -> bool:
    """Whether a leaf is an array of floating-point numbers."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)


def float_leaves(tree: Any) -> list[Array]:
    """The floating-point leaves of a pytree, in the order of `jax.tree.leaves`."""
    return [leaf for leaf in jax.tree.leaves(tree) if is_float(leaf)]


def replace_float_leaves(tree: Any, values: list[Array]) -> Any:
    """The same pytree with other values in its floating-point leaves."""
    remaining = iter(values)
    return jax.tree.map(lambda leaf: next(remaining) if is_float(leaf) else leaf, tree)


def leaf_names(tree: Any) -> list[str]:
    """Names of the floating-point leaves: the attributes, keys and indices that lead to each.

    A distrax bijector flattens into nameless leaves, so its attributes are walked instead. A leaf
    that the walk doesn't meet is named by its path in the flattened tree.
    """
    names: dict[int, str] = {}
    _walk(tree, "", names, set())
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [
        names.get(id(leaf), jax.tree_util.keystr(path)) for path, leaf in paths if is_float(leaf)
    ]


def _walk(node: Any, name: str, names: dict[int, str], visited: set[int]) -> None:
    if is_float(node):
        names.setdefault(id(node), name)
        return
    if id(node) in visited:
        return
    visited.add(id(node))
    if isinstance(node, dict):
        children = node.items()
    elif isinstance(node, list | tuple):
        children = enumerate(node)
    else:
        children = getattr(node, "__dict__", {}).items()
    for key, child in children:
        _walk(child, f"{name}.{key}" if name else str(key), names, visited)


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
