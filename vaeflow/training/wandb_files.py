"""The files in which wandb keeps a run on the disk, read for the last step that they hold.

A file is a log as LevelDB writes it: after a header, blocks of 32 KiB that hold pieces, each with a
checksum, a length and a place in its record. A record is a message of Protocol Buffers, of a type
that wandb ships. wandb writes only every few seconds, so that the file of a process that was killed
lacks the last steps.
"""

from __future__ import annotations

import json
import pathlib
import struct
from collections.abc import Iterator

from vaeflow._util.files import optional_import
from vaeflow._util.reading import open_regular

_MAGIC = b":W&B"
_HEADER, _BLOCK, _PIECE = 7, 32 * 1024, 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def last_step(folder: pathlib.Path, identity: str) -> int:
    """Returns the largest step of a run in the files of all its sessions, 0 if there is none.

    Args:
      folder: The folder in which wandb makes its own, `wandb`.
      identity: The run's id.

    Raises:
      ValueError: If a file isn't one of wandb's, or isn't regular; the message names it.
    """
    message = optional_import("wandb.proto.wandb_internal_pb2", "logger wandb", "wandb", "loggers")
    last = 0
    for path in folder.glob(f"wandb/*run-*-{identity}/run-{identity}.wandb"):
        with open_regular(path) as (stream, size):
            content = stream.read(size)
        if content and not content.startswith(_MAGIC[: len(content)]):
            raise ValueError(f"{path} isn't a file of wandb")
        for record in records(content):
            for item in message.Record.FromString(record).history.item:
                if (item.key or "/".join(item.nested_key)) == "_step":
                    last = max(last, json.loads(item.value_json))
    return last


def records(content: bytes) -> Iterator[bytes]:
    """Yields the records of a file, up to one that a kill left half-written."""
    position, whole = _HEADER, b""
    while position + _PIECE <= len(content):
        left = _BLOCK - position % _BLOCK
        if left < _PIECE:  # filled up with zeros
            position += left
            continue
        size, place = struct.unpack("<HB", content[position + 4 : position + _PIECE])
        position += _PIECE
        piece = content[position : position + size]
        if place not in (_FULL, _FIRST, _MIDDLE, _LAST) or len(piece) < size:
            return
        position += size
        whole = piece if place in (_FULL, _FIRST) else whole + piece
        if place in (_FULL, _LAST):
            yield whole
