"""NumPy archives (``.npz``) whose arrays are read within bounds, and never unpickled."""

from __future__ import annotations

import contextlib
import io
import math
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from vaeflow._util.messages import reason
from vaeflow._util.reading import ZipReader, any_error_named, open_regular, open_zip, read_into


class Archive(NamedTuple):
    """An open archive.

    Attributes:
      keys: Names of its arrays.
      label: The file in errors.
      members: The zip.
    """

    keys: list[str]
    label: str
    members: ZipReader

    def read(self, key: str) -> np.ndarray:
        """Reads one array.

        Raises:
          ValueError: It holds Python objects, is damaged, or doesn't hold what it declares.
        """
        try:
            with self.members.open(key + _SUFFIX) as (stream, size):
                array = _read_array(stream, size)
        except ValueError as error:
            raise ValueError(f"{self.label}: {key} can't be read: {error}") from error
        if array is None:
            raise ValueError(
                f"{self.label}: {key} must be a plain numeric array, got Python objects, which"
                " are never unpickled"
            )
        return array


_SUFFIX = ".npy"


@contextlib.contextmanager
def open_archive(label: str, path: str) -> Iterator[Archive]:
    """Opens the archive at `path`, local or of any kind that `etils.epath` knows.

    Args:
      label: The file in errors, escaped where it isn't printable.
      path: The ``.npz`` file.

    Raises:
      ValueError: The file is missing or isn't an archive.
    """
    with contextlib.ExitStack() as stack:
        try:
            stream, size = stack.enter_context(open_regular(path))
        except OSError as error:
            missing = isinstance(error, FileNotFoundError | NotADirectoryError)
            problem = "there is no such file" if missing else f"can't be read: {reason(error)}"
            raise ValueError(f"{label}: {problem}") from error
        try:
            members = stack.enter_context(open_zip(stream, size))
        except ValueError as error:
            raise ValueError(f"{label}: not an .npz archive: {error}") from error
        keys = [name.removesuffix(_SUFFIX) for name in members.names if name.endswith(_SUFFIX)]
        yield Archive(keys, label, members)


_MOST_HEADER = 10_000  # bytes: NumPy's own bound


def _read_array(stream: BinaryIO, size: int) -> np.ndarray | None:
    """Decodes a ``.npy`` file of a declared size; None if it holds Python objects.

    Raises:
      ValueError: It can't be decoded; the message is the reason alone.
    """
    magic = stream.read(8)
    if magic[:6] != np.lib.format.MAGIC_PREFIX or magic[6] not in (1, 2, 3):
        raise ValueError("it isn't an array as NumPy writes it")
    width = 2 if magic[6] == 1 else 4
    length = int.from_bytes(stream.read(width), "little")
    if length > _MOST_HEADER:
        raise ValueError(f"its header has {length} bytes, of at most {_MOST_HEADER}")
    header = stream.read(length)
    with any_error_named():
        # Version 2 has longer headers, version 3 other names of fields, which aren't read anyhow.
        head = io.BytesIO(struct.pack("<H", length) + header)
        shape, by_column, dtype = np.lib.format.read_array_header_1_0(head)
    if dtype.hasobject:
        return None
    if dtype.kind == "V" or any(axis < 0 for axis in shape):
        raise ValueError(f"it is an array {shape} of {dtype}")
    held = size - 8 - width - length
    if math.prod(shape) * dtype.itemsize != held:
        raise ValueError(
            f"its header declares an array {shape} of {dtype}, but {held} bytes follow"
        )
    flat = np.empty(math.prod(shape), dtype)
    if read_into(stream, flat.view(np.uint8)) < held or stream.read(1):
        raise ValueError(f"it doesn't hold the {size} bytes that it declares")
    return flat.reshape(shape[::-1]).T if by_column else flat.reshape(shape)
