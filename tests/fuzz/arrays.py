"""NumPy archives: their bytes, and hostile ones of any arrays."""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.fuzz.mutations import METHODS, bomb, damaged, forged, pick, zipped

Arrays = Mapping[str, np.ndarray]


def npy(array: np.ndarray) -> bytes:
    """The bytes of one array."""
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def with_header(header: bytes, data: bytes, version: int = 1, length: int | None = None) -> bytes:
    """An array as its header says, with a length of the header that may be wrong."""
    length = len(header) if length is None else length
    packed = struct.pack("<H", length % 2**16) if version == 1 else struct.pack("<I", length)
    return b"\x93NUMPY" + bytes([version, 0]) + packed + header + data


SHAPES: list[Any] = [
    (10**12,),
    (2**63, 3, 3),
    (2**62, 2**62, 4),
    (-1, 3, 2),
    (-3, -4, 1),
    (12, 3),
    (12, 0, 2),
    (0, 2**40, 2**40),
    (0, 2**31, 1, 2**32),
    (1,) * 64,
    (1,) * 70,
    (0,) + (2,) * 63,
    (2.5, 3),
    (True, 72),
    ("12", 3),
    (None,),
    ((12, 3), 2),
    12,
    "12",
    (),
    [12, 3, 2],
]

TYPES: list[Any] = ["|O", "O8", "<c16", "V8", "(2,3)<f4", [("a", "<f4")], [("a", "O")], "<M8[D]"]
TYPES += ["x", "", "<U1000000000", "T", 5, None, "|S0", "<U0", "|S5", ["<f4"], {"a": 1}, "f4,f4"]
TYPES += ["<U" + "9" * 400, "|V2", "<f2", "<f16", "S3", "é", "<m8[25s]", ("<f4", (2,))]

HEADERS = [
    b"",
    b"{'descr': '|u1', 'fortran_order': False, 'shape': (12,",
    b"(" * 500,
    b"[" * 9000,
    b"{'descr':" * 1000,
    b"-" * 9000 + b"1",
    b"{'a': 1}",
    b" " * 9999,
    b"\xff" * 100,
    b"\0" * 100,
    b"{'descr': '|u1', 'fortran_order': 3, 'shape': (12, 3, 2), }",
    b"{'descr': '|u1', 'fortran_order': False, 'shape': (12, 3, 2), 'descr': '|O'}",
    b"{'descr': '|u1', 'fortran_order': False, 'shape': (12L, 3L, 2L), }",
    b"{'descr': '|u1', 'fortran_order': False, 'shape': (9**9**9,)}",
    b"__import__('os').abort()",
    b"{'descr': '|u1', 'fortran_order': False, 'shape': (" + b"1," * 3000 + b")}",
]


@functools.cache
def crowded(count: int) -> bytes:
    """A zip of many members."""
    return zipped([(f"{number}.npy", b"") for number in range(count)])


@functools.cache
def large(kind: str, key: str) -> bytes:
    """An archive that would take much memory."""
    shape = {"rows": (2**20, 30, 20), "columns": (3, 2**26)}.get(kind, (600 * 2**20,))
    if kind == "header":
        head = b"\x93NUMPY\2\0" + struct.pack("<I", 600 * 2**20)
    else:
        described = {"descr": "|u1", "fortran_order": False, "shape": shape}
        head = with_header(str(described).encode(), b"")
    return bomb(f"{key}.npy", head, 600, [("other.npy", npy(np.zeros(3)))])


def hostile(
    random: np.random.Generator, arrays: Arrays, key: str
) -> tuple[str, bytes, Arrays | None]:
    """How an archive was made, and the arrays that it holds; None where it must be refused.

    Args:
      random: The generator.
      arrays: The arrays of a good archive.
      key: One of them, which is replaced where one is.
    """
    members = [(f"{name}.npy", npy(array)) for name, array in arrays.items()]
    method = METHODS[int(random.integers(2))]
    good = zipped(members, method)
    kind = pick(random, ["damaged"] * 8 + ["forged"] * 6 + ["shape", "type", "header"] * 4 + _RARE)
    if kind == "damaged":
        method = pick(random, METHODS)
        title, content = damaged(random, zipped(members, method))
        return f"zip {method}, {title}", content, arrays
    if kind == "forged":
        title, content = forged(random, good)
        return title, content, arrays

    def replaced(data: bytes, held: Arrays | None = None) -> tuple[str, bytes, Arrays | None]:
        new = [(name, data if name == f"{key}.npy" else old) for name, old in members]
        return f"{kind}: {data[:200]!r}", zipped(new, method), held

    array = arrays[key]
    described = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
    if kind == "shape":
        described["shape"] = pick(random, SHAPES)
        return replaced(with_header(repr(described).encode(), array.tobytes()))
    if kind == "type":
        described["descr"] = pick(random, TYPES)
        return replaced(with_header(repr(described).encode(), array.tobytes()))
    if kind == "header":
        data = with_header(
            pick(random, HEADERS),
            array.tobytes(),
            pick(random, [1, 2, 3]),
            pick(random, [None, None, 0, 2**16 - 1, 2**31, 2**32 - 1]),
        )
        fine = {**arrays, key: array} if data == npy(array) or b"L, 2L" in data else None
        return replaced(data, fine)
    if kind == "version":
        version = int(random.integers(256))
        data = with_header(repr(described).encode(), array.tobytes(), version)
        return replaced(data, arrays if version in (1, 2, 3) else None)
    if kind == "order":
        moved = np.asfortranarray(array)
        return replaced(npy(moved), arrays)
    if kind == "no array":
        return replaced(pick(random, [b"", random.bytes(300), b"\x93NUMPY", b"PK\3\4" + bytes(99)]))
    if kind == "rest":
        return replaced(npy(array) + random.bytes(int(random.integers(1, 99))))
    if kind == "twice":
        return kind, zipped([*members, pick(random, members)], method), None
    if kind == "prefix":
        return kind, random.bytes(99) + good, arrays
    if kind == "crowded":
        return kind, crowded(pick(random, [1001, 20_000])), None
    assert kind == "bomb"
    shape = pick(random, ["rows", "columns", "bytes", "header"])
    return f"bomb of {shape}", large(shape, key), None


_RARE = ["version", "order", "no array", "rest", "twice", "prefix", "crowded", "bomb"]
