"""Compiled functions as files, for any platform and any number of rows.

`save_exported` writes a zip of StableHLO modules that `jax.export` serialises, parameters included,
with a signature; `load_exported` reads it without the model.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import export

from vaeflow._util.files import local_or_remote, write_whole

PLATFORMS = ("cpu", "cuda", "tpu")
"""Platforms that functions are exported for."""

VERSION = 1

_FORMAT = "vaeflow functions"

_SIGNATURE = "signature.json"

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
    which describes its arguments and result. `jax.export` promises that a later JAX reads it for
    six months. The file is written atomically.

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
                raise ValueError(f"functions must have names that are identifiers, got {name!r}")
            exported = lower_function(function, variables)
            signature["functions"][name] = _signature(function, exported)
            archive.writestr(zipfile.ZipInfo(f"{name}.bin", _DATE), bytes(exported.serialize()))
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

    Raises:
      OSError: If the file can't be read.
      ValueError: If it isn't a file of `save_exported`, is damaged, was made by a newer version, or
        this version of JAX can't read its functions.
    """
    content = local_or_remote(path).read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            signature = json.loads(archive.read(_SIGNATURE))
            files = {name: archive.read(name) for name in archive.namelist()}
        if signature["format"] != _FORMAT:
            raise ValueError(f"its format is {signature['format']!r}")
        version, made_with = int(signature["version"]), signature["jax"]
    except (
        zipfile.BadZipFile,
        LookupError,
        TypeError,
        ValueError,
        RuntimeError,
        EOFError,
    ) as error:
        message = " ".join(str(error).split())
        raise ValueError(f"{path} holds no exported functions, or is damaged: {message}") from error
    if version > VERSION:
        raise ValueError(
            f"{path} was made by a newer vaeflow (version {version} of the format, this one reads "
            f"up to {VERSION}); upgrade vaeflow"
        )
    functions = {}
    for name in signature["functions"]:
        if f"{name}.bin" not in files:
            raise ValueError(f"{path} is damaged: {name}.bin is missing")
        try:
            exported = export.deserialize(bytearray(files[f"{name}.bin"]))
        except Exception as error:  # of many kinds
            raise ValueError(
                f"{path}: {name} was made with JAX {made_with}, and JAX {jax.__version__} can't "
                f"read it: {' '.join(str(error).split())}"
            ) from error
        functions[name] = jax.jit(exported.call)
    return functions


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
