"""Bounded reading of files that may be damaged or hostile.

Only regular files are read. The sizes that a file declares are compared with what is there before
anything is allocated, and nothing is decompressed beyond `most_decompressed`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import stat
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from vaeflow._util.files import local_or_remote
from vaeflow._util.messages import listed, reason, shown


@contextlib.contextmanager
def open_regular(path: str | os.PathLike[str]) -> Iterator[tuple[BinaryIO, int]]:
    """Opens a file, with its size in bytes.

    Args:
      path: As for `vaeflow._util.files.local_or_remote`.

    Raises:
      OSError: It can't be read.
      ValueError: It isn't a regular file: a folder, a device or a pipe, say, which may never end.
    """
    place = local_or_remote(path)
    if isinstance(place, pathlib.Path):
        try:
            mode = place.stat().st_mode
        except ValueError as error:  # a null byte
            raise ValueError(f"{shown(path)} can't be a file: {reason(error)}") from error
        if not stat.S_ISREG(mode):
            raise ValueError(f"{shown(path)} isn't a regular file")
    with place.open("rb") as stream:
        stream.seek(0, os.SEEK_END)
        size = stream.tell()
        stream.seek(0)
        yield stream, size


_ANY_RATIO = 2**26

_MOST_RATIO = 200


def most_decompressed(size: int) -> int:
    """The number of bytes that `size` compressed ones are taken to hold at most.

    Up to 64 MiB any ratio is possible; beyond that 200, above which there is nothing but
    repetition: images of simple shapes reach 115, deflate 1,032.
    """
    return max(_ANY_RATIO, _MOST_RATIO * size)


_CHUNK = 2**20


def read_into(stream: BinaryIO, buffer: Any) -> int:
    """Fills a buffer of bytes; returns the number of bytes, fewer where the stream ends."""
    view = memoryview(buffer)
    filled = 0
    while filled < len(view):
        read = stream.read(min(_CHUNK, len(view) - filled))
        if not read:
            break
        view[filled : filled + len(read)] = read
        filled += len(read)
    return filled


def parse_json(content: bytes) -> Any:
    """Parses strict JSON: UTF-8, without NaN and infinities.

    Raises:
      ValueError: It is anything else, or nested too deeply.
    """
    try:
        return json.loads(content.decode(), parse_constant=_refuse, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{shown(constant, 40)} is no finite number")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        _refuse(text)
    return number


_MOST_READ = 2**22

_MOST_MEMBERS = 1000


class _BoundedReads:
    """A stream that refuses large reads, such as that of a directory of a million files."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(_MOST_READ + 1 if size < 0 else min(size, _MOST_READ + 1))
        if len(content) > _MOST_READ:
            raise ValueError(f"a part of it has more than {_MOST_READ} bytes")
        return content


class ZipReader:
    """The members of a zip, stored or deflated, which are bounded in number and in size.

    Together they may be read to `most_decompressed` of the file's size. Returned by `open_zip`.
    """

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self._archive = archive
        self._size = size
        self._left = most_decompressed(size)
        names = [member.filename for member in archive.infolist()]
        if len(names) > _MOST_MEMBERS:
            raise ValueError(f"it holds {len(names)} files, of at most {_MOST_MEMBERS}")
        if len(set(names)) < len(names):
            twice = sorted(name for name in set(names) if names.count(name) > 1)
            raise ValueError(f"it holds more than one file named {listed(twice)}")
        self.names = names

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[tuple[BinaryIO, int]]:
        """Opens a member, with the size that it declares, once that is possible and in bounds.

        Raises:
          ValueError: The size isn't, or the member is damaged or can't be decompressed; the
            message is the reason alone.
        """
        member = self._archive.getinfo(name)
        size, compressed = member.file_size, member.compress_size
        stored = member.compress_type == zipfile.ZIP_STORED
        if member.flag_bits & 1 or not (stored or member.compress_type == zipfile.ZIP_DEFLATED):
            raise ValueError("it is encrypted, or compressed by a method other than deflate")
        if compressed > self._size or (stored and size != compressed):
            raise ValueError(
                f"it declares {size} bytes, {compressed} of them in the file of {self._size}"
            )
        if size > min(self._left, most_decompressed(compressed)):
            raise ValueError(f"it declares {size} bytes, compressed to {compressed}: too many")
        self._left -= size
        with any_error_named(), self._archive.open(member) as stream:
            yield stream, size

    def read(self, name: str, most: int | None = None) -> bytes:
        """Reads a member whole.

        Args:
          name: The member.
          most: Its largest size in bytes, None where the bound of `open` is enough.

        Raises:
          ValueError: As for `open`, or it is larger.
        """
        with self.open(name) as (stream, size):
            if most is not None and size > most:
                raise ValueError(f"it has {size} bytes, of at most {most}")
            content = bytearray(size)
            if read_into(stream, content) < size or stream.read(1):
                raise ValueError(f"it doesn't hold the {size} bytes that it declares")
        return bytes(content)


@contextlib.contextmanager
def open_zip(stream: BinaryIO, size: int) -> Iterator[ZipReader]:
    """Opens a zip, of which nothing but the directory is read.

    Args:
      stream: The file, as `open_regular` yields it.
      size: Its size in bytes.

    Raises:
      ValueError: It isn't a zip, is damaged, or holds too many files or two of one name; the
        message is the reason alone.
    """
    with contextlib.ExitStack() as stack:
        with any_error_named():
            archive = stack.enter_context(zipfile.ZipFile(_BoundedReads(stream)))
            reader = ZipReader(archive, size)
        yield reader


@contextlib.contextmanager
def any_error_named() -> Iterator[None]:
    """Turns errors, which decoders raise of any type on damaged content, into a `ValueError`."""
    try:
        yield
    except Exception as error:
        raise ValueError(reason(error)) from error


def read_json(path: Any) -> dict[str, Any] | None:
    """Reads a file that holds a JSON object, None if there is no file.

    Raises:
      ValueError: If it isn't a regular file, is too large or holds anything else; the message
        names the file.
    """
    if not path.exists():
        return None
    return _json_object(_read_all(path), shown(path))


def read_json_lines(path: Any) -> list[dict[str, Any]]:
    """Reads one JSON object a line, none if there is no file; a last line cut short is dropped.

    Raises:
      ValueError: If it isn't a regular file, or another line is anything else; the message names
        the file and the line.
    """
    if not path.exists():
        return []
    *lines, last = _read_all(path).split(b"\n")
    name = shown(path)
    values = [_json_object(line, f"{name}, line {place}") for place, line in enumerate(lines, 1)]
    with contextlib.suppress(ValueError):
        values.append(_json_object(last, name))
    return values


def _read_all(path: Any) -> bytes:
    with open_regular(path) as (stream, size):
        return stream.read(size)


def _json_object(content: bytes, place: str) -> dict[str, Any]:
    try:
        value = parse_json(content)
    except ValueError as error:
        raise ValueError(f"{place} isn't JSON of a run: {reason(error)}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{place} must hold a JSON object, got {shown(repr(value), 40)}")
    return value
