"""Exported functions."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import pathlib
import tempfile
import zipfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from tests.fuzz.mutations import (
    METHODS,
    SPECIAL,
    bomb,
    damaged,
    forged,
    name_of,
    pick,
    special_file,
    zipped,
)
from tests.fuzz.oracle import Input
from vaeflow import sharing

_LENGTH = {"x": sharing.ArgumentSpec(("b",), np.float32, "a length")}

FUNCTIONS = {
    "double": sharing.FunctionSpec(lambda variables, x: 2 * x, _LENGTH, "a length"),
    "triple": sharing.FunctionSpec(lambda variables, x: 3 * x, _LENGTH, "a length"),
    "count": sharing.FunctionSpec(lambda variables, x: x.astype(np.int32), _LENGTH, "a count"),
}


@functools.cache
def members(version: int) -> dict[str, bytes]:
    """The files of a good archive of a version of the format."""
    if version == 1:
        return signed(members(2), version=1)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "file")
        sharing.save_exported(path, FUNCTIONS, {}, {"width": 3})
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
            return {name: archive.read(name) for name in archive.namelist()}


def signed(files: Mapping[str, bytes], **changes: Any) -> dict[str, bytes]:
    """The files with changes of their signature."""
    signature = {**json.loads(files["signature.json"]), **changes}
    return {**files, "signature.json": json.dumps(signature).encode()}


def right(loaded: Mapping[str, Any]) -> bool:
    """Whether functions compute what their names say."""
    found = {name: float(call(np.float32([5]))[0]) for name, call in loaded.items()}
    jax.clear_caches()
    return found == {"double": 10, "triple": 15, "count": 5}


SIGNATURES: list[bytes] = [b"", b"{", b"[]", b"3", b"null", b"{}", b"\xff\xfe", b"[" * 10**5]
SIGNATURES += [b'{"a":' * 10**5, b'{"format": "vaeflow functions"}', b"NaN", bytes(2**23 + 1)]

CHANGES: list[dict[str, Any]] = [
    *({"version": value} for value in (True, "2", 2.0, 0, -1, 10**30, None, [], float("inf"), 3)),
    *({"format": value} for value in ("x", None, 3, "\n\x1b[31m" * 999)),
    *({"functions": value} for value in ([], 3, None, "double", ["double"], {"double": 3})),
    {"functions": {"double": {}, "\n\x1b[31m" * 99: {}}},
    {"functions": {"../../x": {}}},
    {"functions": {"double": {"sha256": 3, "arguments": 3, "result": []}}},
    {"functions": {str(number): {} for number in range(2000)}},
]

_KINDS = ["damaged"] * 8 + ["forged"] * 4 + ["signature", "changes"] * 4
_KINDS += ["exchanged", "unlisted", "twice", "bomb", "compiled", "missing", "special"] * 2


def make(random: np.random.Generator, folder: pathlib.Path) -> Input:
    """Makes an archive."""
    path = folder / name_of(random, ".zip")
    read = functools.partial(sharing.load_exported, path)
    kind, version = pick(random, _KINDS), pick(random, [1, 2])
    if kind == "special":
        kind = pick(random, SPECIAL[:-2])
        special_file(path, kind)
        return Input(kind, read, None)
    files = dict(members(version))
    method = METHODS[int(random.integers(2))]
    fine, title, content = None, f"version {version}", b""
    if kind == "damaged":
        fine = right
        title, content = damaged(random, zipped(list(files.items()), pick(random, METHODS)))
    elif kind == "forged":
        fine = right
        title, content = forged(random, zipped(list(files.items()), method))
    elif kind == "signature":
        files["signature.json"] = pick(random, SIGNATURES)
        title = repr(files["signature.json"][:80])
    elif kind == "changes":
        changes = pick(random, CHANGES)
        title, files = repr(changes)[:80], signed(files, **changes)
    elif kind == "exchanged":
        other = "triple.bin" if version == 2 else "count.bin"
        files["double.bin"], files[other] = files[other], files["double.bin"]
    elif kind == "unlisted":
        files[pick(random, ["other.bin", "../x", "signature.JSON", "a/", "\n\x1b[31m"])] = b"x"
    elif kind == "twice":
        content = zipped([*files.items(), pick(random, list(files.items()))], method)
    elif kind == "bomb":
        name = pick(random, ["unlisted.bin", *files])
        others = [(other, data) for other, data in files.items() if other != name]
        content = _bomb(name, tuple(others))
    elif kind == "missing":
        del files[pick(random, list(files))]
    else:
        fine = _loads
        title, files["double.bin"] = _compiled(random, files["double.bin"])
        signature = json.loads(files["signature.json"])
        if version == 2:
            digest = hashlib.sha256(files["double.bin"]).hexdigest()
            signature["functions"]["double"]["sha256"] = digest
        files = signed(files, **signature)
    path.write_bytes(content or zipped(list(files.items()), method))
    return Input(f"{kind}: {title}", read, fine)


def _loads(loaded: Mapping[str, Any]) -> bool:
    """Code whose digest is right is taken to be what its author meant, and isn't called here."""
    return len(loaded) == len(FUNCTIONS)


def _compiled(random: np.random.Generator, content: bytes) -> tuple[str, bytes]:
    if random.random() < 0.3:
        return "noise", random.bytes(int(random.integers(500)))
    return damaged(random, content)


@functools.cache
def _bomb(name: str, others: tuple[tuple[str, bytes], ...]) -> bytes:
    return bomb(name, b"", 600, others)
