"""Models as files: their definition or configuration, and variables, never pickled."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import operator
import os
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from vaeflow._util.files import write_whole
from vaeflow._util.messages import shown
from vaeflow._util.reading import any_error_named, open_regular, parse_json, read_into
from vaeflow.sharing.definition import build, describe

_MOST_DEPTH = 100


def flatten(tree: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Lists the arrays of nested dicts by JSON pointer (RFC 6901), such as "/params/dense/kernel".

    Args:
      tree: Nested dicts of arrays; keys are strings of any characters.

    Returns:
      The arrays on the host, contiguous, and the pointers of the dicts that are empty.

    Raises:
      ValueError: If there is anything but string keys, dicts and arrays of plain numbers, or
        dicts are more than 100 deep.
    """
    arrays: dict[str, np.ndarray] = {}
    empty: list[str] = []
    _collect(tree, "", arrays, empty)
    return arrays, empty


def _collect(node: Any, pointer: str, arrays: dict[str, np.ndarray], empty: list[str]) -> None:
    if isinstance(node, Mapping):
        if not node:
            empty.append(pointer)
        if pointer.count("/") > _MOST_DEPTH:
            raise ValueError(
                f"variables must be at most {_MOST_DEPTH} deep, got '{shown(pointer)}'"
            )
        for key, value in node.items():
            if not isinstance(key, str):
                raise ValueError(
                    f"variables must have keys that are strings, got {key!r} in '{shown(pointer)}'"
                )
            _collect(value, f"{pointer}/{_escape(key)}", arrays, empty)
    elif not pointer or not isinstance(node, jax.Array | np.ndarray | np.generic):
        raise ValueError(
            f"variables must be nested dicts of arrays, got {type(node).__name__} at"
            f" '{shown(pointer)}'"
        )
    elif jnp.issubdtype(node.dtype, jax.dtypes.prng_key):
        raise ValueError(
            f"variables must be arrays of numbers, got typed keys at '{shown(pointer)}'; "
            "jax.random.key_data gives their numbers"
        )
    else:
        arrays[pointer] = np.asarray(node, order="C")


def unflatten(arrays: Mapping[str, Any], empty: Iterable[str]) -> dict[str, Any]:
    """Builds the nested dicts of `flatten`'s result.

    Raises:
      ValueError: If a name isn't a pointer or is too deep, or something lies within an array.
    """
    tree: dict[str, Any] = {}
    for pointer, value in [*arrays.items(), *((pointer, {}) for pointer in empty)]:
        root, *keys = pointer.split("/")
        if root or (not keys and pointer in arrays):
            raise ValueError(f"'{shown(pointer)}' is no place in nested dicts")
        if len(keys) > _MOST_DEPTH + 1:
            raise ValueError(f"'{shown(pointer)}' is more than {_MOST_DEPTH} deep")
        if not keys:  # the whole tree is empty
            if tree:
                raise ValueError("'' holds something else already")
            continue
        node = tree
        *parents, last = map(_unescape, keys)
        for key in parents:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise ValueError(f"'{shown(pointer)}' lies within an array")
        if last in node:
            raise ValueError(f"'{shown(pointer)}' holds something else already")
        node[last] = value
    return tree


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _unescape(key: str) -> str:
    return key.replace("~1", "/").replace("~0", "~")


VERSION = 2
"""Version of files that hold a model's definition; those without are of version 1."""

_KEY = "vaeflow"

_DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "I8": np.dtype(np.int8),
    "I16": np.dtype(np.int16),
    "I32": np.dtype(np.int32),
    "I64": np.dtype(np.int64),
    "U8": np.dtype(np.uint8),
    "U16": np.dtype(np.uint16),
    "U32": np.dtype(np.uint32),
    "U64": np.dtype(np.uint64),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
    "C64": np.dtype(np.complex64),
}

_MOST_HEADER = 2**23  # bytes

_MOST_TENSORS = 20_000


class SavedModel(NamedTuple):
    """The content of a file.

    Attributes:
      model: The model, None where the file has none.
      config: The configuration, or other JSON values that were written with the model.
      variables: Nested dicts of JAX arrays on the default device.
    """

    model: nn.Module | None
    config: dict[str, Any]
    variables: dict[str, Any]


def save(
    path: str | os.PathLike[str],
    model: Any,
    variables: Mapping[str, Any],
    *,
    classes: Iterable[Any] = (),
) -> None:
    """Writes a model and its variables, or a configuration and variables, to a safetensors file.

    Tensors are named by JSON pointers, such as "/params/flow/top_prior/shift". The header's
    metadata hold, under "vaeflow", a JSON object of "format", "version", "config", "empty" (the
    pointers of empty dicts), "model" (the definition, where there is a model) and "sha256", a
    digest of all the rest. Equal arguments give equal files. The file is written atomically.

    Args:
      path: A local path, or one such as "gs://bucket/name" where etils is installed.
      model: A Flax module of vaeflow's public classes, whose definition the file then holds with
        every field. Or a configuration from which you build it yourself: a dataclass or a mapping
        that JSON can hold; tuples come back as lists.
      variables: Nested dicts of arrays, such as Flax's; keys are strings of any characters.
      classes: Classes and functions of your own that the model is made of.

    Raises:
      OSError: If the file can't be written.
      ValueError: If the model holds what a definition can't, naming the field; if JSON can't hold
        the configuration; or if the variables have typed keys, a dtype that safetensors lacks, or
        anything but string keys, dicts and arrays, more than 20,000 of these, or any nested more
        than 100 deep.
    """
    if isinstance(model, nn.Module):
        write_saved(path, SavedModel(model, {}, variables), classes)
    else:
        write_saved(path, SavedModel(None, _as_json(model), variables), classes)


def write_saved(
    path: str | os.PathLike[str], saved: SavedModel, classes: Iterable[Any] = ()
) -> None:
    """Writes a file of both a model and JSON values; arguments and errors as `save`."""
    arrays, empty = flatten(saved.variables)
    for pointer, array in arrays.items():
        if array.dtype.newbyteorder("=") not in _DTYPES.values():
            allowed = ", ".join(dtype.name for dtype in _DTYPES.values())
            raise ValueError(
                f"variables must have a dtype of {allowed}; got {array.dtype} at '{shown(pointer)}'"
            )
    # Sorted, so that equal models are equal files.
    arrays = {
        pointer: array.astype(array.dtype.newbyteorder("="), copy=False)
        for pointer, array in sorted(arrays.items())
    }
    description = {
        "format": "vaeflow",
        "version": 1 if saved.model is None else VERSION,
        "config": _as_json(saved.config),
        "empty": sorted(empty),
    }
    if saved.model is not None:
        description["model"] = describe(saved.model, classes)
    description["sha256"] = _digest(description, arrays)
    try:
        content = safetensors.numpy.save(arrays, {_KEY: json.dumps(description)})
    except UnicodeEncodeError as error:
        raise ValueError(f"variables must have keys that UTF-8 can hold: {error}") from error
    header = int.from_bytes(content[:8], "little")
    most = max(len(arrays), len(empty))
    if most > _MOST_TENSORS or header > _MOST_HEADER:
        raise ValueError(
            f"variables must have {_MOST_TENSORS} arrays or empty dicts at most, and with the"
            f" configuration a header of at most {_MOST_HEADER} bytes; got {most}, and {header}"
        )
    write_whole(path, content)


def load(
    path: str | os.PathLike[str], *, classes: Iterable[Any] = ()
) -> tuple[Any, dict[str, Any]]:
    """Reads a file of `save`.

    Args:
      path: As for `save`.
      classes: As for `save`.

    Returns:
      What was saved: the model, or the configuration as JSON values; and the variables as nested
      dicts of JAX arrays on the default device, with the same dtypes and bits.

    Raises:
      OSError: If the file can't be read.
      ValueError: If it isn't a regular file, or one of `save`, is damaged, was made by a newer
        version, has a model of classes that aren't known, or holds 64 bit numbers while
        jax_enable_x64 is off.
    """
    saved = read_saved(path, classes)
    return saved.config if saved.model is None else saved.model, saved.variables


def read_saved(path: str | os.PathLike[str], classes: Iterable[Any] = ()) -> SavedModel:
    """Reads all that a file holds; arguments and errors as `load`."""
    with open_regular(path) as (stream, size):
        try:
            header = _read_header(stream, size)
            stream.seek(0)
            with any_error_named():
                tensors = safetensors.deserialize(stream.read(size))
        except ValueError as error:
            raise ValueError(
                f"{shown(path)} isn't a safetensors file, or is damaged: {error}"
            ) from error
    description = _description(path, header)
    try:
        with any_error_named():
            arrays = _checked_arrays(description, tensors)
    except ValueError as error:
        raise ValueError(f"{shown(path)} is damaged: {error}") from error
    for pointer, array in arrays.items():
        if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
            raise ValueError(
                f"{shown(path)} holds {array.dtype} at '{shown(pointer)}', which needs"
                " jax_enable_x64"
            )
    try:
        with any_error_named():
            model = build(description["model"], classes) if "model" in description else None
            if not isinstance(model, nn.Module | None):
                raise ValueError(f"its model is {shown(repr(model), 80)}")
            on_device = jax.device_put(arrays, may_alias=False)
            variables = unflatten(on_device, description["empty"])
    except ValueError as error:
        raise ValueError(f"{shown(path)} can't be loaded: {error}") from error
    return SavedModel(model, description["config"], variables)


def _read_header(stream: BinaryIO, size: int) -> dict[str, Any]:
    """Reads the header of a safetensors file, and compares its sizes with that of the file.

    Raises:
      ValueError: They don't fit, or are out of bounds; the message is the reason alone.
    """
    start = bytearray(8)
    if read_into(stream, start) < 8:
        raise ValueError(f"it has {size} bytes")
    length = int.from_bytes(start, "little")
    if length > min(size - 8, _MOST_HEADER):
        raise ValueError(
            f"its header has {length} bytes, of at most {_MOST_HEADER}, in a file of {size}"
        )
    text = bytearray(length)
    read_into(stream, text)
    header = parse_json(bytes(text))
    with any_error_named():
        ends = [item["data_offsets"][1] for key, item in header.items() if key != "__metadata__"]
        end = 8 + length + max(ends, default=0)
    if end != size:
        raise ValueError(f"its tensors end at byte {shown(end, 40)}, in a file of {size}")
    if len(ends) > _MOST_TENSORS:
        raise ValueError(f"it has {len(ends)} tensors, of at most {_MOST_TENSORS}")
    return header


def _description(path: str | os.PathLike[str], header: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the description in the header after checking its format and version."""
    metadata = header.get("__metadata__") or {}
    try:
        description = parse_json(metadata[_KEY].encode())
        version = description["version"]
        if description["format"] != "vaeflow" or type(version) is not int or version < 1:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{shown(path)} isn't a model of vaeflow: its header doesn't say so"
        ) from None
    if version > VERSION:
        raise ValueError(
            f"{shown(path)} was made by a newer vaeflow (version {shown(version, 40)} of the"
            f" format, this one reads up to {VERSION}); upgrade vaeflow"
        )
    return description


def _checked_arrays(
    description: dict[str, Any], tensors: list[tuple[str, dict[str, Any]]]
) -> dict[str, np.ndarray]:
    """Returns the arrays on the host, once they and the description have the digest in it."""
    digest = description.pop("sha256", None)
    arrays = {
        name: np.frombuffer(tensor["data"], _DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
        for name, tensor in sorted(tensors, key=operator.itemgetter(0))
        if tensor["dtype"] in _DTYPES
    }
    if digest != _digest(description, arrays) or len(arrays) < len(tensors):
        raise ValueError("its content doesn't have the digest in its header")
    config, empty = description.get("config"), description.get("empty")
    if not isinstance(config, dict):
        raise ValueError(f"its config must be an object, got {shown(json.dumps(config), 80)}")
    strings = isinstance(empty, list) and all(isinstance(pointer, str) for pointer in empty)
    if not strings or len(empty) > _MOST_TENSORS:
        raise ValueError(f"its list of empty dicts is {shown(json.dumps(empty), 80)}")
    return arrays


def _as_json(config: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        config = dataclasses.asdict(config)
    if not isinstance(config, Mapping):
        raise ValueError(f"config must be a dataclass or a mapping, got {type(config).__name__}")
    try:
        return json.loads(json.dumps(dict(config), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"config must be what JSON can hold: {error}") from error


def _digest(description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of the description and of the names, dtypes, shapes and bytes of sorted arrays."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, array in arrays.items():
        head = json.dumps([name, array.dtype.name, array.shape])
        digest.update(head.encode())
        digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()
