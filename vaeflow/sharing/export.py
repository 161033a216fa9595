"""Compiled functions as files, for any platform and any number of rows.

`save_exported` writes a zip of StableHLO modules that `jax.export` serialises, parameters included,
with a signature; `load_exported` reads it without the model.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import export

from vaeflow._util.files import write_whole
from vaeflow._util.messages import listed, reason, shown
from vaeflow._util.reading import ZipReader, any_error_named, open_regular, open_zip, parse_json

PLATFORMS = ("cpu", "cuda", "tpu")
"""Platforms that functions are exported for."""

VERSION = 2

_FORMAT = "vaeflow functions"

_SIGNATURE = "signature.json"

_MOST_SIGNATURE = 2**23  # bytes

_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest of a zip: equal functions are equal files


class ArgumentSpec(NamedTuple):
    """An argument of an exported function.

    Attributes:
      shape: Its sizes; "b" stands for any number of rows, the same in all arguments.
      dtype: Its type.
      description: Its content, with units.
    """

    shape: tuple[int | str, ...]
    dtype: Any
    description: str


class FunctionSpec(NamedTuple):
    """A function to export, with its arguments.

    Attributes:
      call: Pure function of the variables and the arguments, in their order, to one array.
      arguments: The arguments by name.
      description: Its result, with units.
    """

    call: Callable[..., jax.Array]
    arguments: Mapping[str, ArgumentSpec]
    description: str


def save_exported(
    path: str | os.PathLike[str],
    functions: Mapping[str, FunctionSpec],
    variables: Mapping[str, Any],
    config: Mapping[str, Any],
) -> None:
    """Writes functions for CPUs, GPUs and TPUs and for any batch, parameters included.

    The file is a zip of NAME.bin, made by `jax.export`, for each function, and of signature.json,
    which describes its arguments and result and holds a digest of it. `jax.export` promises that a
    later JAX reads it for six months. The file is written atomically.

    Args:
      path: As for `save`.
      functions: The functions by name, such as `export_functions` returns; names are Python
        identifiers.
      variables: The variables to call them with.
      config: JSON values that describe the model.

    Raises:
      OSError: If the file can't be written.
      ValueError: If a name isn't an identifier.
    """
    signature: dict[str, Any] = {
        "format": _FORMAT,
        "version": VERSION,
        "jax": jax.__version__,
        "platforms": list(PLATFORMS),
        "batch": "b",
        "config": config,
        "functions": {},
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, function in functions.items():
            if not name.isidentifier():
                raise ValueError(
                    f"functions must have names that are identifiers, got '{shown(name)}'"
                )
            exported = lower_function(function, variables)
            compiled = bytes(exported.serialize())
            signature["functions"][name] = {
                **_signature(function, exported),
                "sha256": _digest(compiled),
            }
            archive.writestr(zipfile.ZipInfo(f"{name}.bin", _DATE), compiled)
        text = json.dumps(signature, indent=2) + "\n"
        archive.writestr(zipfile.ZipInfo(_SIGNATURE, _DATE), text)
    write_whole(path, content.getvalue())


def load_exported(path: str | os.PathLike[str]) -> dict[str, Callable[..., jax.Array]]:
    """Reads a file of `save_exported`.

    Args:
      path: As for `save`.

    Returns:
      Compiled functions by name, of the arguments that signature.json in the file describes. They
      run on the platforms listed there.

    Functions are code, so load those of people you trust: the digests in the file tell damage, not
    intent. Files of version 1 have none; their functions are compared with their descriptions.

    Raises:
      OSError: If the file can't be read.
      ValueError: If it isn't a regular file, or one of `save_exported`, is damaged, was made by a
        newer version, or this version of JAX can't read its functions.
    """
    with contextlib.ExitStack() as stack:
        stream, size = stack.enter_context(open_regular(path))
        try:
            archive = stack.enter_context(open_zip(stream, size))
            signature = _read_signature(archive)
        except ValueError as error:
            raise ValueError(
                f"{shown(path)} holds no exported functions, or is damaged: {error}"
            ) from error
        if signature["version"] > VERSION:
            raise ValueError(
                f"{shown(path)} was made by a newer vaeflow (version"
                f" {shown(signature['version'], 40)} of the format, this one reads up to"
                f" {VERSION}); upgrade vaeflow"
            )
        try:
            return _read_functions(archive, signature)
        except ValueError as error:
            raise ValueError(f"{shown(path)} can't be loaded: {error}") from error


def _read_signature(archive: ZipReader) -> dict[str, Any]:
    if _SIGNATURE not in archive.names:
        raise ValueError(f"it has no {_SIGNATURE}")
    with any_error_named():
        signature = parse_json(archive.read(_SIGNATURE, _MOST_SIGNATURE))
        version, functions = signature["version"], signature["functions"]
        if signature["format"] != _FORMAT:
            raise ValueError(f"its format is {shown(repr(signature['format']), 40)}")
        if type(version) is not int or version < 1 or not isinstance(functions, dict):
            raise ValueError("its version must be a number, its functions an object")
    return signature


def _read_functions(
    archive: ZipReader, signature: Mapping[str, Any]
) -> dict[str, Callable[..., jax.Array]]:
    files = {f"{name}.bin": name for name in signature["functions"]}
    for file in files:
        if file not in archive.names:
            raise ValueError(f"{shown(file)} is missing")
    unlisted = [name for name in archive.names if name not in files and name != _SIGNATURE]
    if unlisted:
        raise ValueError(f"it holds {listed(unlisted)}, which {_SIGNATURE} doesn't list")
    functions = {}
    for file, name in files.items():
        described, content = signature["functions"][name], archive.read(file)
        with any_error_named():
            if signature["version"] > 1 and described["sha256"] != _digest(content):
                raise ValueError(f"{shown(file)} doesn't have its digest")
        try:
            exported = export.deserialize(bytearray(content))
        except Exception as error:  # of many kinds
            raise ValueError(
                f"{shown(name)} was made with JAX {shown(signature.get('jax'), 40)}, and JAX"
                f" {jax.__version__} can't read it: {reason(error)}"
            ) from error
        with any_error_named():
            if not _fits(described, exported):
                raise ValueError(f"{shown(file)} has other arguments or results than it should")
        functions[name] = jax.jit(exported.call)
    return functions


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _fits(described: Mapping[str, Any], exported: export.Exported) -> bool:
    """Returns whether arguments and result have the described types and axes.

    Widths of numbers and formulas of the number of rows may be written in several ways.
    """
    values = [*described["arguments"], described["result"]]
    expected = [(value["dtype"], value["shape"]) for value in values]
    avals = (*exported.in_avals, *exported.out_avals)
    found = [(aval.dtype.name, aval.shape) for aval in avals]
    return [_pattern(*value) for value in expected] == [_pattern(*value) for value in found]


def _pattern(dtype: str, shape: Sequence[Any]) -> tuple[str, list[int | None]]:
    return dtype.rstrip("0123456789"), [size if type(size) is int else None for size in shape]


def lower_function(function: FunctionSpec, variables: Mapping[str, Any]) -> export.Exported:
    """Lowers a function of these variables for every platform and any number of rows.

    Args:
      function: The function.
      variables: Its first argument, which becomes a constant of it.

    Returns:
      The exported function of the arguments in their order. It names no files of this machine.
    """
    scope = export.SymbolicScope()
    abstract = [
        jax.ShapeDtypeStruct(
            export.symbolic_shape(
                "(" + "".join(f"{size}," for size in argument.shape) + ")", scope=scope
            ),
            argument.dtype,
        )
        for argument in function.arguments.values()
    ]

    @jax.jit
    def call(*arguments):
        return function.call(variables, *arguments)

    with _without_source_locations():
        return export.export(call, platforms=PLATFORMS)(*abstract)


@contextlib.contextmanager
def _without_source_locations() -> Iterator[None]:
    """Keeps the paths of this machine's source files out of the exported modules."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _signature(function: FunctionSpec, exported: export.Exported) -> dict[str, Any]:
    (result,) = exported.out_avals
    return {
        "arguments": [
            {
                "name": name,
                "dtype": np.dtype(argument.dtype).name,
                "shape": list(argument.shape),
                "meaning": argument.description,
            }
            for name, argument in function.arguments.items()
        ],
        "result": {
            "dtype": result.dtype.name,
            "shape": [size if isinstance(size, int) else str(size) for size in result.shape],
            "meaning": function.description,
        },
    }
