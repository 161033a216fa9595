"""Models and configurations as JSON values: trees of the fields of dataclasses.

A definition of a model holds every field, defaults included, so that a model of a file stays what
it was when a default changes. Nothing is imported by a name in a file: classes and functions are
found among those that vaeflow makes public, and those that the reader passes.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vaeflow._util.messages import shown
from vaeflow.bijectors import Bijector

_PACKAGES = (
    "bases",
    "bijectors",
    "decoders",
    "encoders",
    "flows",
    "models",
    "nn",
    "quantizers",
)

_JAX_FUNCTIONS = (
    "celu",
    "elu",
    "gelu",
    "hard_tanh",
    "identity",
    "leaky_relu",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "soft_sign",
    "softplus",
    "squareplus",
    "swish",
    "tanh",
)
"""Functions of `jax.nn` that may be activations of a network."""

_DTYPES = ("float16", "bfloat16", "float32", "float64", "int8", "int32", "uint8")

_MOST_DEPTH = 50


@functools.cache
def _public() -> dict[str, Any]:
    """The public dataclasses and functions by name, such as "flows.Glow"."""
    names = {f"jax.nn.{name}": getattr(jax.nn, name) for name in _JAX_FUNCTIONS}
    for package in _PACKAGES:
        module = importlib.import_module(f"vaeflow.{package}")
        for name in module.__all__:
            value = getattr(module, name)
            if callable(value) and _is_nameable(value):
                names[f"{package}.{name}"] = value
    return names


def _is_nameable(value: Any) -> bool:
    """Whether a file may name a class or a function: dataclasses, bijectors and any function."""
    is_class = inspect.isclass(value)
    return not is_class or dataclasses.is_dataclass(value) or issubclass(value, Bijector)


def _registry(classes: Iterable[Any]) -> dict[str, Any]:
    """The public names, and those of the classes and functions that a caller adds.

    Raises:
      ValueError: If one of these isn't a dataclass, a bijector or a function, or two have one name.
    """
    own: dict[str, Any] = {}
    for value in classes:
        name = getattr(value, "__name__", None)
        if name is None or not _is_nameable(value):
            raise ValueError(
                "classes must hold dataclasses, Flax modules, bijectors and functions, got "
                f"{value!r}"
            )
        if own.setdefault(name, value) is not value:
            raise ValueError(f"classes must have names of their own, got two of {name!r}")
    return {**_public(), **own}


def describe(model: Any, classes: Iterable[Any] = ()) -> Any:
    """Describes a model, or another object of public classes, by JSON values.

    Fields may hold numbers, strings, None, types of arrays, sequences and mappings of these, public
    functions, `functools.partial` of these with keywords, and objects of public classes.

    Args:
      model: The object.
      classes: Classes and functions of your own that it uses, which are named by their `__name__`.

    Raises:
      ValueError: If it holds anything else, such as a lambda or an array; the message names the
        field.
    """
    registry = _registry(classes)
    # By identity: functions compare so, and two names of one object are one.
    names = {id(value): name for name, value in reversed(registry.items())}
    return _described(model, "model", names)


def _described(value: Any, place: str, names: Mapping[int, str]) -> Any:
    if isinstance(value, np.generic | np.ndarray | jax.Array) and np.ndim(value) == 0:
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, tuple | list):
        return [_described(item, f"{place}[{i}]", names) for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ValueError(f"{place} must have keys that are strings, got {list(value)}")
        items = {key: _described(item, f"{place}.{key}", names) for key, item in value.items()}
        return {"mapping": items}
    if id(value) in names:
        return {"function": names[id(value)]}
    if isinstance(value, functools.partial) and not value.args and id(value.func) in names:
        keywords = _described(value.keywords, place, names)["mapping"]
        return {"function": names[id(value.func)], "keywords": keywords}
    if (dtype := _dtype_name(value)) is not None:
        return {"dtype": dtype}
    kind = type(value)
    if not dataclasses.is_dataclass(kind):
        raise ValueError(
            f"{place} is {shown(repr(value), 80)}, which a file can't hold: give a public function "
            "or class of vaeflow, or one of your own among `classes`"
        )
    if id(kind) not in names:
        raise ValueError(
            f"{place} is of a class that isn't vaeflow's, {kind.__name__}: pass "
            f"classes=[{kind.__name__}], to save and to load"
        )
    fields = {}
    for field in _fields(kind):
        item = getattr(value, field.name)
        if item is field.default and _is_closure(item):
            continue
        fields[field.name] = _described(item, f"{place}.{field.name}", names)
    return {"class": names[id(kind)], "fields": fields}


def _fields(kind: type) -> list[dataclasses.Field]:
    """The fields that define an object: of a module, all but its place among others."""
    place = ("parent", "name") if issubclass(kind, nn.Module) else ()
    return [field for field in dataclasses.fields(kind) if field.init and field.name not in place]


def _is_closure(value: Any) -> bool:
    """Whether this is a function without a public name, such as an initializer of Flax."""
    return inspect.isfunction(value) and "<locals>" in value.__qualname__


def _dtype_name(value: Any) -> str | None:
    """The name of a type of arrays, None for anything else."""
    # JAX's types, such as `jnp.float32`, have a dtype; NumPy's are classes.
    dtype = getattr(value, "dtype", None) if inspect.isclass(value) else value
    if inspect.isclass(value) and issubclass(value, np.generic):
        dtype = np.dtype(value)
    return dtype.name if isinstance(dtype, np.dtype) and dtype.name in _DTYPES else None


def build(definition: Any, classes: Iterable[Any] = ()) -> Any:
    """Builds the object of a definition: the inverse of `describe`; sequences are tuples.

    Args:
      definition: Its result, as JSON gives it back.
      classes: See `describe`.

    Raises:
      ValueError: If a class isn't known, a field is none of its class or doesn't fit, or the
        definition isn't one; the message names the place.
    """
    return _built(definition, "model", _registry(classes), 0)


def _built(value: Any, place: str, registry: Mapping[str, Any], depth: int) -> Any:
    if depth > _MOST_DEPTH:
        raise ValueError(f"{shown(place, 80)} is more than {_MOST_DEPTH} deep")
    if value is None or isinstance(value, bool | int | float | str):
        return value

    def inner(item: Any, name: str) -> Any:
        return _built(item, f"{place}{name}", registry, depth + 1)

    if isinstance(value, list):
        return tuple(inner(item, f"[{index}]") for index, item in enumerate(value))
    match value:
        case {"float": "inf" | "-inf" | "nan" as number, **rest} if not rest:
            return float(number)
        case {"dtype": str(name), **rest} if not rest and name in _DTYPES:
            return getattr(jnp, name)
        case {"mapping": dict(items), **rest} if not rest:
            return {key: inner(item, f".{key}") for key, item in items.items()}
        case {"function": str(name), **rest} if rest.keys() <= {"keywords"}:
            function = _known(name, place, registry)
            if inspect.isclass(function):
                return function
            keywords = rest.get("keywords")
            if not isinstance(keywords, dict):
                return function
            values = {key: inner(item, f".{key}") for key, item in keywords.items()}
            return functools.partial(function, **values)
        case {"class": str(name), "fields": dict(items), **rest} if not rest:
            kind = _known(name, place, registry)
            if not dataclasses.is_dataclass(kind):
                raise ValueError(f"{shown(place, 80)} must be of a class, got {shown(name, 80)}")
            known = {field.name for field in _fields(kind)}
            if not items.keys() <= known:
                unknown = ", ".join(sorted(items.keys() - known))
                raise ValueError(
                    f"{shown(place, 80)} has fields that {name} hasn't, {shown(unknown, 80)}: it "
                    "may be of a newer vaeflow, or of another class of this name"
                )
            fields = {key: inner(item, f".{key}") for key, item in items.items()}
            try:
                return kind(**fields)
            except Exception as error:
                raise ValueError(f"{shown(place, 80)} can't be a {name}: {error}") from error
    raise ValueError(f"{shown(place, 80)} isn't a definition: {shown(repr(value), 80)}")


def _known(name: str, place: str, registry: Mapping[str, Any]) -> Any:
    if name not in registry:
        raise ValueError(
            f"{shown(place, 80)} is of {shown(name, 80)}, which isn't vaeflow's: pass it among "
            f"`classes`, such as classes=[{shown(name, 80)}]"
        )
    return registry[name]


Config = TypeVar("Config")


def from_json(kind: type[Config], value: Any, name: str = "config") -> Config:
    """Builds a configuration from JSON values: the inverse of `dataclasses.asdict` and JSON.

    Fields may be other such dataclasses, tuples, numbers, strings, bools, literals, and unions of
    these with None. A missing field takes its default.

    Args:
      kind: The dataclass.
      value: A dict of JSON values.
      name: Name of the value in errors.

    Raises:
      ValueError: If a value doesn't fit its field, a field is unknown, or one without a default is
        missing.
    """
    if not dataclasses.is_dataclass(kind):
        return _leaf(kind, value, name)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    missing = [
        field
        for field in fields.values()
        if field.default is field.default_factory is dataclasses.MISSING
        and not (isinstance(value, dict) and field.name in value)
    ]
    if not isinstance(value, dict) or missing or not value.keys() <= fields.keys():
        got = shown(", ".join(value) if isinstance(value, dict) else repr(value), 120)
        allowed = ", ".join(fields)
        raise ValueError(f"{name} must have the fields of {kind.__name__}: {allowed}; got {got}")
    types_of = typing.get_type_hints(kind)
    return kind(
        **{
            field: from_json(types_of[field], item, f"{name}.{field}")
            for field, item in value.items()
        }
    )


def _leaf(kind: Any, value: Any, name: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        (rest,) = (argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else from_json(rest, value, name)
    if origin is tuple and isinstance(value, list):
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(value):
            return tuple(
                from_json(kind, item, f"{name}[{index}]")
                for index, (kind, item) in enumerate(zip(kinds, value, strict=True))
            )
    if origin is typing.Literal and value in arguments:
        return value
    if kind is float and type(value) is int:
        return float(value)
    if origin is None and type(value) is kind:
        return value
    allowed = kind.__name__ if origin is None else str(kind).removeprefix("typing.")
    raise ValueError(f"{name} must be {allowed}, got {shown(repr(value))}")
