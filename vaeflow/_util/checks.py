"""Checks of arguments: bound modules, entries of batches, keys, labels, contexts, numbers, rows.

The shapes and types of arrays are always known. Their values aren't while a function is compiled:
a check of values raises where they are known, and elsewhere makes the result NaN.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


def known(value: Any) -> np.ndarray | None:
    """Returns an array's values, or None where they are traced or partly on other hosts."""
    if isinstance(value, jax.core.Tracer):
        return None
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        return None
    return np.asarray(value)


def as_array(name: str, value: Any) -> Array:
    """Converts an argument to an array.

    Raises:
      ValueError: If it can't be one of numbers.
    """
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be an array, got a {type(value).__name__}") from None


def describe(value: Array | None) -> str:
    """Type and shape of an array, for messages."""
    return "None" if value is None else f"{value.dtype} of shape {value.shape}"


def bound(method: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a method of a module that reads variables: called without, it says how to call it.

    Raises:
      ValueError: When the method is called on a module outside `init` and `apply`.
    """

    @functools.wraps(method)
    def checked(self: nn.Module, *arguments: Any, **keywords: Any) -> Any:
        if self.scope is None:
            name = method.__name__
            chosen = "" if name == "__call__" else f', method="{name}"'
            raise ValueError(
                f"{type(self).__name__} has no variables of its own: {name} must be called as "
                f"model.apply(variables, ...{chosen})"
            )
        return method(self, *arguments, **keywords)

    return checked


NEEDS = {
    "infer": "latents that are inferred",
    "posterior": "a single posterior",
    "log_prob": "a log-likelihood",
    "quantize": "codes",
    "logits": "logits of classes",
}
"""Descriptions of models by a method that they have."""


def require(model: nn.Module, method: str) -> None:
    """Checks that an objective is defined for a model.

    Raises:
      ValueError: If the model lacks a method that the objective calls.
    """
    if not hasattr(model, method):
        raise ValueError(
            f"this objective is defined for models with {NEEDS[method]} (`{method}`); "
            f"{type(model).__name__} has none"
        )


def check_part(name: str, part: Any, role: str, needed: Sequence[str]) -> None:
    """Checks that a part of a model has what the model needs of it.

    Args:
      name: Name of the field.
      part: The part.
      role: What it is to be, for the message.
      needed: Names of attributes and methods.

    Raises:
      ValueError: If the part lacks one.
    """
    missing = [each for each in needed if not hasattr(part, each)]
    if missing:
        raise ValueError(
            f"{name} must be {role}, got a {type(part).__name__}, which has no "
            f"{', no '.join(missing)}"
        )


def entry(batch: Mapping[str, Any], name: str) -> Any:
    """Returns an entry of a batch.

    Raises:
      ValueError: If the batch hasn't got it.
    """
    if name not in batch:
        raise ValueError(f"batch must hold {name!r}, got {sorted(batch)}")
    return batch[name]


def context_of(
    batch: Mapping[str, Any], context_key: str | tuple[str, ...] | None
) -> Any | tuple[Any, ...] | None:
    """The model's context in a batch: the array or the tuple of arrays that the key names.

    Raises:
      ValueError: If the batch hasn't got an entry that the key names.
    """
    if isinstance(context_key, tuple):
        return tuple(entry(batch, name) for name in context_key)
    return None if context_key is None else entry(batch, context_key)


def check_keys(rng: Any, *, name: str = "rng") -> Array:
    """Returns a typed key, or an array of them.

    Raises:
      ValueError: If it isn't made of typed keys.
    """
    if not hasattr(rng, "dtype") or not jnp.issubdtype(rng.dtype, jax.dtypes.prng_key):
        got = describe(rng) if hasattr(rng, "dtype") else f"a {type(rng).__name__}"
        raise ValueError(f"{name} must be typed keys (jax.random.key), got {got}")
    return rng


def check_count(name: str, value: int, least: int = 1) -> None:
    """Checks a number of things.

    Raises:
      ValueError: If it isn't an integer of at least `least`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")


AT_LEAST_NONE = ("num_probes", "num_blocks")
"""Counts that may be zero."""


def check_sizes(module: nn.Module) -> None:
    """Checks the fields of a module that are counts and sizes, one or a sequence of them.

    Raises:
      ValueError: If one isn't an integer in range.
    """
    for field in dataclasses.fields(module):
        name, value = field.name, getattr(module, field.name)
        if value is None or not (name.startswith("num_") or name in SIZES):
            continue
        for size in value if isinstance(value, (tuple, list)) else (value,):
            least = 0 if name in AT_LEAST_NONE else 1
            check_count(f"{type(module).__name__}: {name}", size, least)


SIZES = ("hidden_sizes", "hidden_features", "latent_sizes", "event_shape", "image_shape")
"""Names of fields that are sizes."""


def check_bits(bits: int) -> None:
    """Checks a number of bits of an intensity.

    Raises:
      ValueError: If it isn't in 1, ..., 8.
    """
    if bits not in range(1, 9):
        raise ValueError(f"bits must be in 1, ..., 8, got {bits}")


def check_number(
    name: str, value: Any, least: float = -math.inf, *, above: float = -math.inf
) -> Any:
    """Returns a number that must be finite and in a range; NaN where it is traced and isn't.

    Args:
      name: Name of the argument.
      value: The number, or an array of numbers.
      least: The number must be at least this.
      above: The number must be above this.

    Raises:
      ValueError: If the number is known and out of range.
    """
    now = known(value)
    if now is None:
        inside = jnp.isfinite(value) & (value >= least) & (value > above)
        return jnp.where(inside, value, jnp.nan)
    if now.dtype.kind not in "iuf" and not jnp.issubdtype(now.dtype, jnp.floating):
        raise ValueError(f"{name} must be a number, got {value!r}")
    now = now.astype(np.float64)
    if not np.all(np.isfinite(now) & (now >= least) & (now > above)):
        allowed = f" above {above:g}" if above > least else f" of at least {least:g}"
        allowed = "" if max(above, least) == -math.inf else allowed
        raise ValueError(f"{name} must be a finite number{allowed}, got {value}")
    return value


def check_labels(name: str, labels: Any, num_classes: int) -> tuple[Array, Bool[Array, "*batch"]]:
    """Returns labels, and which of them are of a class.

    Args:
      name: Name of the argument.
      labels: Integers of any shape.
      num_classes: Number K of classes; their labels are 0, ..., K - 1.

    Raises:
      ValueError: If the labels aren't integers, or they are known and one is of no class.
    """
    check_count("num_classes", num_classes)
    now = known(labels)
    labels = as_array(name, labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"{name} must hold integer labels of {num_classes} classes, got {describe(labels)}"
        )
    inside = (labels >= 0) & (labels < num_classes)
    if now is not None:
        wrong = now[(now < 0) | (now >= num_classes)]
        if wrong.size:
            raise ValueError(
                f"{name} must hold labels 0, ..., {num_classes - 1}, got {wrong[0]}, and "
                f"{wrong.size} of {now.size} labels are of no class"
            )
    return labels, inside


def one_hot_labels(
    context: Any, num_classes: int, *, rows: int | None = None
) -> tuple[Float[Array, "*batch class"], Bool[Array, "*batch"]]:
    """Encodes the labels that are a context as one-hot vectors.

    Args:
      context: Integer labels ``[*batch]``.
      num_classes: Number of classes.
      rows: Number of examples, of which each must have a label; None where any shape will do.

    Returns:
      The vectors, zero for a label of no class, and which labels are of a class.

    Raises:
      ValueError: If there are no labels, or not one for each example, or they aren't integers, or a
        label is known and of no class.
    """
    batch = "(*batch,)" if rows is None else f"({rows},)"
    if context is None:
        raise ValueError(
            f"context: labels of {num_classes} classes are needed, of shape {batch}, got None"
        )
    labels, inside = check_labels("context", context, num_classes)
    if rows is not None and labels.shape != (rows,):
        raise ValueError(
            f"context must be one label for each of {rows} examples, of shape {batch}, got shape "
            f"{labels.shape}"
        )
    return jax.nn.one_hot(labels, num_classes, dtype=jnp.float32), inside


def encode_labels(
    context: Any, num_classes: int | None, *, rows: int | None = None
) -> Float[Array, "*batch class"] | None:
    """Encodes labels as one-hot vectors, NaN for a label of no class; None without classes.

    Arguments and errors are those of `one_hot_labels`; without classes the context must be None.
    """
    if num_classes is not None:
        vectors, inside = one_hot_labels(context, num_classes, rows=rows)
        return jnp.where(inside[..., None], vectors, jnp.nan)
    if context is not None:
        raise ValueError(
            "context must be None for a model with num_classes=None, got "
            f"{describe(as_array('context', context))}"
        )
    return None


def check_context(
    context: Any, *, features: int | None, positions: tuple[int, ...] = ()
) -> Float[Array, "*batch_and_positions feature"] | None:
    """Returns a context of floats.

    Args:
      context: Vectors, or maps of features, with any batch axes; or None.
      features: Number of features that the parameters were made for, 0 for none; None where it
        isn't known, as in `init`, and any context will do.
      positions: Height and width of maps of features.

    Raises:
      ValueError: If the context is absent or present, or of a shape or type, unlike that expected.
    """
    axes = ", ".join(map(str, ("*batch", *positions, "feature" if features is None else features)))
    if context is None:
        if features:
            raise ValueError(f"context must have shape ({axes}), as in init, got None")
        return None
    context = as_array("context", context)
    if features == 0:
        raise ValueError(
            "context must be None, as in init, for parameters that were made without, got "
            f"{describe(context)}"
        )
    if not jnp.issubdtype(context.dtype, jnp.floating):
        raise ValueError(
            f"context must hold floats of shape ({axes}) where num_classes isn't given, got "
            f"{describe(context)}"
        )
    event = context.shape[max(context.ndim - len(positions) - 1, 0) :]
    if (
        len(event) <= len(positions)
        or event[:-1] != tuple(positions)
        or (features is not None and event[-1] != features)
    ):
        since = "" if features is None else ", as in init"
        raise ValueError(f"context must have shape ({axes}){since}, got {context.shape}")
    return context


def check_rows(context_batch: tuple[int, ...], batch: tuple[int, ...], name: str) -> None:
    """Checks that a context is one for all examples, or one for each.

    Raises:
      ValueError: If its batch axes don't broadcast to those of the examples.
    """
    try:
        # JAX's, as sizes may be symbols of an exported function.
        fits = jnp.broadcast_shapes(context_batch, batch) == tuple(batch)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"context must have batch axes that broadcast to those of the {name}, {batch}, got "
            f"{context_batch}"
        )


def check_finite(name: str, data: Any) -> None:
    """Checks the rows that parameters are initialised from, where they are known.

    Raises:
      ValueError: If a value isn't finite; the first is named by row and column.
    """
    now = known(data)
    if now is None or not jnp.issubdtype(now.dtype, jnp.floating):
        return
    bad = ~np.isfinite(now.astype(np.float64))
    if bad.any():
        row, *column = np.argwhere(bad)[0]
        place = column[0] if len(column) == 1 else tuple(map(int, column))
        raise ValueError(
            f"{name} must be finite numbers in init, got {now[(row, *column)]} in row {row}, "
            f"column {place} (counted from 0); {bad.sum()} aren't"
        )
