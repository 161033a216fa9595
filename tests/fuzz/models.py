"""Saved models."""

from __future__ import annotations

import functools
import importlib
import json
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import vaeflow as vf
from tests.fuzz.mutations import SPECIAL, damaged, name_of, pick, same, special_file
from tests.fuzz.oracle import Input

_save = importlib.import_module("vaeflow.sharing.save")

CONFIG = {"width": 3, "name": "é", "sizes": [1, 2.5, None]}
VARIABLES = {
    "params": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.ones(2, np.int8)},
    "state": {},
}
ARRAYS = {f"/params/{name}": VARIABLES["params"][name] for name in ("bias", "kernel")}


@functools.cache
def good() -> bytes:
    """The bytes of a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "model")
        vf.save(path, CONFIG, VARIABLES)
        return path.read_bytes()


def written(header: str, data: bytes = b"", length: int | None = None) -> bytes:
    """A file of any header."""
    text = header.encode("utf-8", "surrogatepass")
    length = len(text) if length is None else length
    return (length % 2**64).to_bytes(8, "little") + text + data


def described(arrays: Mapping[str, np.ndarray], **changes: Any) -> str:
    """The description of arrays with some changes, and a digest that fits it."""
    description = {"format": "vaeflow", "version": 1, "config": CONFIG, "empty": ["/state"]}
    description |= changes
    digest = _save._digest(description, arrays)
    return json.dumps({**description, "sha256": digest})


def of_tensors(tensors: Mapping[str, Any], data: bytes, description: str) -> bytes:
    """A file whose header holds these tensors and this description."""
    return written(json.dumps({"__metadata__": {"vaeflow": description}, **tensors}), data)


def of_arrays(arrays: Mapping[str, np.ndarray], description: str) -> bytes:
    """A file of arrays, with this description."""
    tensors, data = {}, b""
    kinds = {np.dtype(np.float32): "F32", np.dtype(np.int8): "I8"}
    for name, array in arrays.items():
        end = len(data) + array.nbytes
        tensors[name] = {
            "dtype": kinds[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [len(data), end],
        }
        data += array.tobytes()
    return of_tensors(tensors, data, description)


_DEEP = "[" * 10**5 + "]" * 10**5

CONFIGS: list[Any] = [[1], "a", 3, None, True, float("inf"), {"a": float("-inf")}, [], ""]
CONFIGS += [{"a": float("nan")}, {"a": 1e999}, "x" * 10**5, [{}]]

VERSIONS: list[Any] = [True, "1", 1.0, 0, -1, 10**30, float("inf"), None, [1], {}, 2]

EMPTIES: list[Any] = ["/state", [1], [None], None, {}, ["state"], ["/params"], ["/state"] * 2, 3]
EMPTIES += [["/a" * 200], ["/params/kernel/x"], ["\n\x1b[31m"], [""], ["/" * 10**5], [["/a"]]]

NAMES = ["", "a", "/params", "/params/kernel/x", "/a" * 102, "/a" * 10**4, "/" * 10**5, "/state"]
NAMES += ["a\nb\x1b[31m", "/state/a"]

FINE_NAMES = ["/" + "x" * 10**5, "/\u202e/y", "//", "/new\nline", "/" + "a/" * 99]

DTYPES = ["F8_E4M3", "X", "F64", "I64", "f32", "", 3, None, "BF16", "C64", "F4"]

SHAPES: list[Any] = [[0, 2**40], [2**63], [2**64], [-1], [1] * 70, [2.5], "6", None, [2**32, 2**32]]
SHAPES += [[0] + [2**62] * 2, [[6]], [6, 1], [True], {}, [10**12], [0] * 40]

OFFSETS: list[Any] = [[0, 24, 3], [24, 0], [-24, 0], [0, 2**63], [0, 10**30], [0], "0", [0.0, 24.0]]
OFFSETS += [[1, 25], [0, "24"], None, [0, 23]]

_KINDS = ["damaged"] * 8 + ["config", "version", "empty", "name", "dtype", "shape", "offset"] * 2
_KINDS += ["header", "deep", "many", "text", "special", "fine"]


def loads_as(config: Any, variables: Any, loaded: tuple[Any, Any]) -> bool:
    """Whether these were loaded."""
    return loaded[0] == config and same(loaded[1], variables)


def loads_one(config: Any, loaded: tuple[Any, Any]) -> bool:
    """Whether an array of ones was loaded."""
    (leaf,) = jax.tree.leaves(loaded[1])
    return loaded[0] == config and same(leaf, np.ones(6, np.float32))


def make(random: np.random.Generator, folder: pathlib.Path) -> Input:
    """Makes a file."""
    path = folder / name_of(random, ".safetensors")
    read = functools.partial(vf.load, path)
    kind, right = pick(random, _KINDS), None
    if kind == "special":
        kind = pick(random, SPECIAL[:-2])
        special_file(path, kind)
        return Input(kind, read, None)
    title, content = _content(random, kind)
    if kind == "damaged":
        right = functools.partial(loads_as, CONFIG, VARIABLES)
    if kind == "fine":
        right = functools.partial(loads_one, CONFIG)
    path.write_bytes(content)
    return Input(f"{kind}: {title[:200]}", read, right)


def _content(random: np.random.Generator, kind: str) -> tuple[str, bytes]:
    if kind == "damaged":
        return damaged(random, good())
    if kind in ("config", "version", "empty"):
        value = pick(random, {"config": CONFIGS, "version": VERSIONS, "empty": EMPTIES}[kind])
        return repr(value), of_arrays(ARRAYS, described(ARRAYS, **{kind: value}))
    ones = np.ones(6, np.float32)
    if kind == "name":
        arrays = dict(sorted({**ARRAYS, pick(random, NAMES): ones}.items()))
        return repr(list(arrays)), of_arrays(arrays, described(arrays))
    if kind == "fine":
        arrays = {pick(random, FINE_NAMES): ones}
        return repr(list(arrays)), of_arrays(arrays, described(arrays, empty=[]))
    if kind in ("dtype", "shape", "offset"):
        tensor = {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}
        value = pick(random, {"dtype": DTYPES, "shape": SHAPES, "offset": OFFSETS}[kind])
        tensor[{"offset": "data_offsets"}.get(kind, kind)] = value
        data = ones.tobytes()
        if kind == "shape" and isinstance(value, list) and 0 in value:
            tensor["data_offsets"], data = [0, 0], b""
        return repr(value), of_tensors({"/params/a": tensor}, data, described({"/params/a": ones}))
    if kind == "header":
        headers = ["", "{", "[]", "3", "null", '"a"', "{}", '{"__metadata__": 3}', "\ud800"]
        header = pick(random, headers)
        length = pick(random, [None, 0, 2**23 + 1, 2**32, 2**64 - 1, 10**8])
        return f"{header}, {length}", written(header, random.bytes(8), length)
    if kind == "deep":
        deep = pick(random, [_DEEP, '{"a":' * 10**5, "[{" * 500, _DEEP[: 10**6]])
        description = '{"format": "vaeflow", "version": 1, "config": ' + deep + "}"
        if random.random() < 0.5:
            return kind, written(deep)
        return kind, of_tensors({}, b"", description)
    if kind == "many":
        return kind, _crowded(pick(random, ["arrays", "names", "lists", "objects"]))
    text = pick(random, ["{", "[1]", "{}", "", '{"format": 3}', "\0", '{"format": "vaeflow"}'])
    return text, of_tensors({}, b"", text)


@functools.cache
def _crowded(kind: str) -> bytes:
    """A file whose header is large."""
    if kind == "arrays":
        empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
        return of_tensors({f"/{number}": empty for number in range(3 * 10**4)}, b"", described({}))
    if kind == "names":
        empty = [f"/{number}" for number in range(5 * 10**4)]
        return of_arrays({}, described({}, empty=empty))
    filler = {"lists": "[],", "objects": "{},"}[kind] * (2**23 // 3 - 100)
    return written(f"[{filler}0]")
