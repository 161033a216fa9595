"""Damage to bytes, names of files, and zips as nobody should write them."""

from __future__ import annotations

import io
import os
import pathlib
import struct
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from tests.fuzz.oracle import MARK

Choice = TypeVar("Choice")


def pick(random: np.random.Generator, choices: Sequence[Choice]) -> Choice:
    """One of the choices."""
    return choices[int(random.integers(len(choices)))]


_EXTREMES = [0, 1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63]


def damaged(random: np.random.Generator, content: bytes) -> tuple[str, bytes]:
    """The kind of damage, and the content with it."""
    size = len(content)
    at, end = sorted(int(place) for place in random.integers(0, size + 1, 2))
    end = min(end, at + int(2 ** random.uniform(0, 10)))
    noise = random.bytes(int(2 ** random.uniform(0, 6)))
    changed = bytearray(content)
    kind = pick(random, ["bits", "noise", "cut", "gap", "more", "copy", "zeros", "number", "tail"])
    if kind == "bits":
        for place in random.integers(0, size, int(random.integers(1, 5))):
            changed[place] ^= 1 << int(random.integers(8))
    elif kind == "noise":
        changed[at : at + len(noise)] = noise
    elif kind == "cut":
        del changed[at:]
    elif kind == "gap":
        del changed[at:end]
    elif kind == "more":
        changed[at:at] = noise
    elif kind == "copy":
        changed[at:at] = changed[at:end]
    elif kind == "zeros":
        changed[at:end] = bytes(end - at)
    elif kind == "number":
        width = pick(random, [1, 2, 4, 8])
        number = pick(random, _EXTREMES) % 256**width
        changed[at : at + width] = number.to_bytes(width, pick(random, ["little", "big"]))
    else:
        changed += noise
    return f"{kind} at {at}", bytes(changed)


_PREFIXES = ["", "", "", "new\nline ", "\x1b[31mred ", "\u202ebidi ", "quote's\" ", "é ", "a" * 200]
_PREFIXES += [os.fsdecode(b"\xff\xfe "), "back\\slash ", "%s{} "]


def name_of(random: np.random.Generator, ending: str) -> str:
    """A name for a file, which ends with the mark that errors show, and often begins oddly."""
    return f"{pick(random, _PREFIXES)}{MARK}{ending}"


SPECIAL = ["folder", "pipe", "device", "loop", "nothing"]


def special_file(path: pathlib.Path, kind: str) -> None:
    """Makes something that isn't a regular file."""
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path.name)


METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


def zipped(members: Sequence[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of the members, in their order; names may come twice."""
    content = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(content, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return content.getvalue()


def forged(random: np.random.Generator, content: bytes) -> tuple[str, bytes]:
    """A zip with another number in one of the fields of a member, or of the end."""
    fields = {"method": (10, 2), "flags": (8, 2), "crc": (16, 4), "held": (20, 4)}
    fields |= {"declared": (24, 4), "version": (6, 2), "name": (28, 2), "offset": (42, 4)}
    end = {"count": (10, 2), "length": (12, 4), "start": (16, 4)}
    changed = bytearray(content)
    if random.random() < 0.7:
        places = [at for at in range(len(content)) if content[at : at + 4] == b"PK\1\2"]
        at, (field, (offset, width)) = pick(random, places), pick(random, list(fields.items()))
    else:
        at = content.rindex(b"PK\5\6")
        field, (offset, width) = pick(random, list(end.items()))
    number = pick(random, [*_EXTREMES, 2**29, 1000, int(random.integers(2**16))]) % 256**width
    changed[at + offset : at + offset + width] = number.to_bytes(width, "little")
    return f"{field} is {number}", bytes(changed)


def zeros_deflated(mebibytes: int) -> bytes:
    """A raw deflate stream of zeros, without an end."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    once = compressor.compress(bytes(2**20)) + compressor.flush(zlib.Z_FULL_FLUSH)
    return once * mebibytes


def bomb(name: str, head: bytes, mebibytes: int, others: Sequence[tuple[str, bytes]]) -> bytes:
    """A zip of a member that is a head and so many zeros, with its sizes but without its CRC-32."""
    compressor = zlib.compressobj(0, zlib.DEFLATED, -15)
    start = compressor.compress(head) + compressor.flush(zlib.Z_FULL_FLUSH)
    data = start + zeros_deflated(mebibytes) + b"\3\0"
    sizes = struct.pack("<II", len(data), len(head) + mebibytes * 2**20)
    whole = zipped([*others, (name, b"")])
    at = whole.index(b"PK\1\2")  # the member is the last before the directory
    local = bytearray(whole[at - 30 - len(name) : at])
    local[8:10], local[18:26] = struct.pack("<H", 8), sizes
    directory = bytearray(whole[at:])
    last = directory.rindex(b"PK\1\2")
    directory[last + 10 : last + 12], directory[last + 20 : last + 28] = struct.pack("<H", 8), sizes
    end = directory.rindex(b"PK\5\6")
    struct.pack_into("<I", directory, end + 16, at + len(data))
    return whole[: at - len(local)] + bytes(local) + data + bytes(directory)


def same(first: Any, second: Any) -> bool:
    """Whether arrays are equal, nested in dicts or not."""
    if isinstance(second, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in second)
    first, second = np.asarray(first), np.asarray(second)
    return first.dtype == second.dtype and np.array_equal(first, second, equal_nan=False)
