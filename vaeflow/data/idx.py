"""Images in idx files, the layout in which MNIST and its relatives come."""

from __future__ import annotations

import gzip
import math
import zlib

import numpy as np
from jaxtyping import UInt8

from vaeflow.data.arrays import array_part
from vaeflow.data.checks import check_images, check_labels
from vaeflow.data.dataset import Dataset
from vaeflow.data.packages import missing_package
from vaeflow.data.splits import make_splits

_PREFIXES = {"train": "train", "test": "t10k"}
_UINT8 = 0x08  # the third byte of the magic number; the fourth is the number of axes
_SUFFIXES = ("", ".gz")


def open_idx(name: str, path: str, fold: int) -> Dataset:
    """Opens the four files in the folder at `path`.

    They are ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and the same two of ``t10k``,
    which is the test split; validation is carved out of train. Names may have a dot before ``idx``
    (``train-images.idx3-ubyte``) and may end in ``.gz``.

    A file is big-endian: the bytes 0, 0, the type (8 for uint8) and the number of axes, four bytes
    for the size of each axis, and the entries.

    Raises:
      ValueError: A file is missing, not of this format, too short or too long, or doesn't fit the
        others.
    """
    try:
        from etils import epath
    except ImportError as error:
        raise missing_package(f"source={name!r}", "etils") from error
    folder = epath.Path(path).expanduser()
    if not folder.is_dir():
        raise ValueError(f"source={name!r}: there is no such folder")

    def read(stem: str, axes: int) -> tuple[str, np.ndarray]:
        names = [
            f"{stem}{separator}idx{axes}-ubyte{suffix}"
            for separator in "-."
            for suffix in _SUFFIXES
        ]
        for file in names:
            if (folder / file).is_file():
                what = f"source={name!r}, {file}"
                return what, _parse(_bytes(folder / file, what), axes, what)
        raise ValueError(
            f"source={name!r}: there is no file {', '.join(names[:-1])} or {names[-1]}"
        )

    images, labels = {}, {}
    for split, prefix in _PREFIXES.items():
        what, array = read(f"{prefix}-images", 3)
        images[split] = check_images(array, name=what)
        what, array = read(f"{prefix}-labels", 1)
        labels[split] = check_labels(array, len(images[split]), name=what)
    shapes = {split: array.shape[1:] for split, array in images.items()}
    if shapes["train"] != shapes["test"]:
        raise ValueError(f"source={name!r}: images of different shapes: {shapes}")
    parts = {split: array_part(images[split], labels[split]) for split in images}
    splits = make_splits(parts, fold, name=name)
    classes = max(int(array.max(initial=0)) for array in labels.values()) + 1
    return Dataset(name=name, shape=shapes["train"], classes=classes, **splits)


def _bytes(file, what: str) -> bytes:
    content = file.read_bytes()
    if not file.name.endswith(".gz"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{what}: can't be decompressed: {error}") from error


def _parse(content: bytes, axes: int, what: str) -> UInt8[np.ndarray, "..."]:
    """Takes the bytes of an idx file apart."""
    magic = bytes([0, 0, _UINT8, axes])
    if content[:4] != magic:
        raise ValueError(
            f"{what}: begins with the bytes {content[:4].hex(' ') or 'of nothing'}; allowed are"
            f" {magic.hex(' ')}, of uint8 with {axes} axes"
        )
    start = 4 + 4 * axes
    if len(content) < start:
        raise ValueError(
            f"{what}: ends after {len(content)} bytes, within its head; allowed are {start} or more"
        )
    shape = tuple(int(size) for size in np.frombuffer(content[4:start], ">u4"))
    expected = start + math.prod(shape)
    if len(content) != expected:
        raise ValueError(
            f"{what}: holds {len(content)} bytes; its head, of shape {shape}, allows {expected}"
        )
    return np.frombuffer(content[start:], np.uint8).reshape(shape)
