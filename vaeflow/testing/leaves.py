"""The floating-point leaves of a bijector, with names."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


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
