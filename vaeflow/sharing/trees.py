"""Nested dicts as flat ones, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def flatten(tree: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Lists the arrays of nested dicts by JSON pointer (RFC 6901), such as "/params/dense/kernel".

    Args:
      tree: Nested dicts of arrays; keys are strings of any characters.

    Returns:
      The arrays on the host, contiguous, and the pointers of the dicts that are empty.

    Raises:
      ValueError: If there is anything but string keys, dicts and arrays of plain numbers.
    """
    arrays: dict[str, np.ndarray] = {}
    empty: list[str] = []
    _collect(tree, "", arrays, empty)
    return arrays, empty


def _collect(node: Any, pointer: str, arrays: dict[str, np.ndarray], empty: list[str]) -> None:
    if isinstance(node, Mapping):
        if not node:
            empty.append(pointer)
        for key, value in node.items():
            if not isinstance(key, str):
                raise ValueError(
                    f"variables must have keys that are strings, got {key!r} in '{pointer}'"
                )
            _collect(value, f"{pointer}/{_escape(key)}", arrays, empty)
    elif not pointer or not isinstance(node, jax.Array | np.ndarray | np.generic):
        raise ValueError(
            f"variables must be nested dicts of arrays, got {type(node).__name__} at '{pointer}'"
        )
    elif jnp.issubdtype(node.dtype, jax.dtypes.prng_key):
        raise ValueError(
            f"variables must be arrays of numbers, got typed keys at '{pointer}'; "
            "jax.random.key_data gives their numbers"
        )
    else:
        arrays[pointer] = np.asarray(node, order="C")


def unflatten(arrays: Mapping[str, Any], empty: Iterable[str]) -> dict[str, Any]:
    """Undoes `flatten`.

    Raises:
      ValueError: If a name isn't a pointer, or something lies within an array.
    """
    tree: dict[str, Any] = {}
    for pointer, value in [*arrays.items(), *((pointer, {}) for pointer in empty)]:
        root, *keys = pointer.split("/")
        if root or (not keys and pointer in arrays):
            raise ValueError(f"'{pointer}' is no place in nested dicts")
        if not keys:  # the whole tree is empty
            continue
        node = tree
        *parents, last = map(_unescape, keys)
        for key in parents:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise ValueError(f"'{pointer}' lies within an array")
        if last in node:
            raise ValueError(f"'{pointer}' holds something else already")
        node[last] = value
    return tree


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _unescape(key: str) -> str:
    return key.replace("~1", "/").replace("~0", "~")
