"""Fingerprints: JSON values that tell data, models and options apart, and how two of them differ.

A run is fingerprinted when it begins. A session that would go on with other data or another model
is refused, and hosts that train together compare theirs before the first step.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from vaeflow.data.dataset import Source

SAMPLE = 64
"""Examples of a split, at even distances, that its digest is made from."""
SHOWN = 4
"""Differences that a message lists."""

PyTree = Any


def fingerprint(
    model: Any, losses: Any, batches: Any, config: Any, state: PyTree
) -> dict[str, Any]:
    """Returns the fingerprint of a run: JSON values, nested.

    Args:
      model: The model.
      losses: Its loss, or losses by player.
      batches: The batches, whose splits are sampled.
      config: The options, a dataclass.
      state: The arrays of a checkpoint, of which shapes and types count.
    """
    leaves, _ = jax.tree.flatten_with_path(state)
    value = {
        "data": describe_batches(batches),
        "model": describe(model),
        "losses": describe(losses),
        "options": dataclasses.asdict(config),
        "arrays": {
            jax.tree_util.keystr(path, simple=True, separator="/"): _type_of(leaf)
            for path, leaf in leaves
        },
    }
    return json.loads(json.dumps(value))


def describe_batches(batches: Any) -> Any:
    """Describes batches by their splits, or by the first of them where these aren't known."""
    if dataclasses.is_dataclass(batches):
        return describe(batches)
    return {"type": type(batches).__qualname__, "first": describe(next(batches.stream(0)))}


def describe(value: Any) -> Any:
    """Describes a value as JSON, the same in every process.

    A module or dataclass has its type and the fields that aren't at their defaults, so that a new
    field changes nothing; a function its name; an array its type, shape and digest; a split of data
    its size, and types, shapes and a digest of a sample.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return {"array": _type_of(value), "digest": _digest([value])}
    if isinstance(value, Source):
        return _describe_source(value)
    if isinstance(value, Mapping):
        return {str(name): describe(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, functools.partial):
        function = {"type": "partial", "function": describe(value.func)}
        arguments = {str(place): describe(item) for place, item in enumerate(value.args)}
        return function | arguments | describe(value.keywords)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__qualname__} | _changed_fields(value)
    if isinstance(value, Callable) and hasattr(value, "__qualname__"):
        return value.__qualname__
    if not jax.tree_util.all_leaves([value]):
        leaves = {str(place): describe(leaf) for place, leaf in enumerate(jax.tree.leaves(value))}
        return {"type": type(value).__qualname__} | leaves
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _changed_fields(value: Any) -> dict[str, Any]:
    fields = {}
    for field in dataclasses.fields(value):
        if isinstance(value, nn.Module) and field.name in ("parent", "name"):
            continue
        item = describe(getattr(value, field.name))
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if default is dataclasses.MISSING or item != describe(default):
            fields[field.name] = item
    return fields


def _describe_source(source: Source) -> dict[str, Any]:
    count = len(source)
    rows = np.unique(np.linspace(0, count - 1, min(count, SAMPLE)).astype(np.int64))
    batch = source.gather(rows) if count else {}
    arrays = {name: _type_of(values[0]) for name, values in batch.items()}
    names = sorted(batch)
    return {"examples": count, "arrays": arrays, "digest": _digest([batch[n] for n in names])}


def _type_of(leaf: Any) -> str:
    """Type and shape, such as "float32[3, 4]"."""
    return f"{leaf.dtype}{list(leaf.shape)}"


def _digest(arrays: list[Any]) -> str:
    total = hashlib.sha256()
    for array in arrays:
        if isinstance(array, jax.Array) and jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
            array = jax.random.key_data(array)
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()[:16]


def difference(before: Any, now: Any, there: str = "there", here: str = "here") -> str:
    """The differences of two JSON values, such as "train.steps: 100 there, 200 here".

    Of many, the first few are listed; of values that are long, the beginnings.
    """
    old, new = flatten(before), flatten(now)
    names = different(before, now)
    shown = [
        f"{name.removeprefix('config.')}: {_short(old, name)} {there}, {_short(new, name)} {here}"
        for name in names[:SHOWN]
    ]
    return ", ".join(shown) + (f", and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def different(before: Any, now: Any) -> list[str]:
    """The dotted names by which two JSON values differ."""
    old, new = flatten(before), flatten(now)
    return [name for name in dict.fromkeys([*old, *new]) if _shown(old, name) != _shown(new, name)]


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict with dotted names."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    flat = {}
    for name, item in value.items():
        flat |= flatten(item, f"{prefix}.{name}" if prefix else name)
    return flat


def _shown(flat: Mapping[str, Any], name: str) -> str:
    """A value as JSON, "nothing" where it is missing."""
    return json.dumps(flat[name]) if name in flat else "nothing"


def _short(flat: Mapping[str, Any], name: str) -> str:
    text = _shown(flat, name)
    return text if len(text) <= 80 else f"{text[:77]}..."
