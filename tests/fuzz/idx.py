"""Folders of IDX files."""

from __future__ import annotations

import functools
import gzip
import math
import pathlib
import struct
import zlib
from collections.abc import Mapping

import numpy as np

from tests.fuzz.mutations import SPECIAL, damaged, name_of, pick, same, special_file, zeros_deflated
from tests.fuzz.oracle import Input
from vaeflow import data

_RANDOM = np.random.RandomState(0)


def encoded(shape: tuple[int, ...], values: bytes, kind: int = 8) -> bytes:
    """The bytes of a file."""
    return struct.pack(f">HBB{len(shape)}I", 0, kind, len(shape), *shape) + values


GOOD = {
    "train-images-idx3-ubyte": encoded((10, 3, 2), _RANDOM.bytes(60)),
    "train-labels-idx1-ubyte": encoded((10,), bytes(range(10))),
    "t10k-images-idx3-ubyte": encoded((4, 3, 2), _RANDOM.bytes(24)),
    "t10k-labels-idx1-ubyte": encoded((4,), bytes(range(4))),
}


def decoded(content: bytes, axes: int) -> np.ndarray | None:
    """The array of a file, None if it isn't one."""
    if content[:4] != bytes([0, 0, 8, axes]) or len(content) < 4 + 4 * axes:
        return None
    shape = struct.unpack_from(f">{axes}I", content, 4)
    values = content[4 + 4 * axes :]
    if math.prod(shape) != len(values) or 0 in shape:
        return None
    return np.frombuffer(values, np.uint8).reshape(shape)


def right(files: Mapping[str, bytes], dataset: data.Dataset) -> bool:
    """Whether a data set holds all the files."""
    held = [decoded(content, 3 if "images" in name else 1) for name, content in files.items()]
    if any(array is None for array in held):
        return False
    parts = [data.stack(getattr(dataset, split)) for split in ("train", "validation", "test")]
    order = np.argsort(np.concatenate([part["index"] for part in parts]))
    images = np.concatenate([part["image"] for part in parts])[order, ..., 0]
    labels = np.concatenate([part["label"] for part in parts])[order]
    expected = np.concatenate([held[0], held[2]]), np.concatenate([held[1], held[3]])
    return same(images, expected[0]) and same(labels, expected[1].astype(np.int32))


def _gzip_bomb(head: bytes, mebibytes: int) -> bytes:
    compressor = zlib.compressobj(0, zlib.DEFLATED, -15)
    start = compressor.compress(head) + compressor.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08" + bytes(7) + start + zeros_deflated(mebibytes) + b"\3\0" + bytes(8)


_SIZES = [0, 1, 3, 255, 2**16, 2**24, 2**31, 2**32 - 1]

_KINDS = ["damaged"] * 6 + ["compressed damaged"] * 6 + ["head"] * 5
_KINDS += ["exchanged", "bomb", "named"]


def make(random: np.random.Generator, folder: pathlib.Path) -> Input:
    """Makes a folder with one file that is hostile."""
    root = folder / name_of(random, "")
    root.mkdir()
    files, name = dict(GOOD), pick(random, list(GOOD))
    kind = pick(random, _KINDS)
    suffix, written, must_fail = "", None, False
    if kind == "damaged":
        title, files[name] = damaged(random, files[name])
    elif kind == "compressed damaged":
        suffix = ".gz"
        title, written = damaged(random, gzip.compress(files[name], mtime=0))
        try:
            files[name] = gzip.decompress(written)
        except Exception:
            must_fail = True
    elif kind == "head":
        axes = 3 if "images" in name else 1
        shape = tuple(pick(random, _SIZES) for _ in range(axes))
        values = pick(random, [files[name][4 + 4 * axes :], bytes(2**16), b""])
        files[name] = encoded(shape, values, pick(random, [8, 8, 8, 9, 13]))
        suffix, title = pick(random, ["", ".gz"]), f"shape {shape}, {len(values)} values"
        written = gzip.compress(files[name]) if suffix else None
        must_fail = math.prod(shape) == 0
    elif kind == "exchanged":
        title, files[name] = kind, files[pick(random, [other for other in files if other != name])]
    elif kind == "bomb":
        suffix, must_fail = ".gz", True
        heads = [encoded((2**20, 30, 20), b""), encoded((600 * 2**20,), b""), GOOD[name], b""]
        title, written = kind, _gzip_bomb(pick(random, heads), 600)
    else:
        title, must_fail = pick(random, SPECIAL[:-1]), True
        special_file(root / name, title)
    for other, content in files.items():
        if other != name:
            (root / other).write_bytes(content)
        elif kind != "named":
            (root / f"{other}{suffix}").write_bytes(content if written is None else written)
    read = functools.partial(data.open_dataset, data.DataConfig(f"idx:{root}"))
    return Input(f"{name}: {title}", read, None if must_fail else functools.partial(right, files))
