"""Configurations from the JSON values that they were written as."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, TypeVar

Config = TypeVar("Config")


def from_json(kind: type[Config], value: Any, name: str = "config") -> Config:
    """Builds a configuration from what `dataclasses.asdict` and JSON have made of it.

    Fields may be other such dataclasses, tuples, numbers, strings, bools, literals, and unions of
    these with None. A field that isn't there takes its default.

    Args:
      kind: The dataclass.
      value: A dict of JSON values.
      name: What errors call the value.

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
        got = ", ".join(value) if isinstance(value, dict) else repr(value)
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
    raise ValueError(f"{name} must be {allowed}, got {value!r}")
