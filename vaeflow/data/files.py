"""Images from NumPy archives (``npz:PATH``) and from IDX files as MNIST has (``idx:PATH``)."""

from __future__ import annotations

import gzip
import math
import zlib
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import UInt8

from vaeflow._util.files import local_or_remote
from vaeflow._util.messages import listed, reason, shown
from vaeflow._util.reading import most_decompressed, open_regular, read_into
from vaeflow.data.archive import open_archive
from vaeflow.data.dataset import SPLITS, Dataset, array_part, make_splits
from vaeflow.data.images import check_images, check_labels

_KEYS = (
    "image (with or without label), or train_image (with or without validation_image and"
    " test_image, and train_label and so on)"
)


def open_npz(name: str, path: str, fold: int) -> Dataset:
    """Opens the archive at `path`, an ``.npz`` file.

    Arrays are ``image`` and, if wanted, ``label``, and the splits are carved out of them; or
    ``train_image``, ``validation_image``, ``test_image`` and ``train_label`` and so on, where
    validation and test are carved out of train only if they are missing. Images are uint8 of
    shape [count, height, width] or [count, height, width, channel]; labels are whole numbers of
    shape [count]. Arrays under other names are ignored. Nothing is ever unpickled, and nothing
    read that is larger than the file can hold (`vaeflow._util.reading.most_decompressed`).

    Raises:
      ValueError: The file is missing or isn't an archive, or an array is of the wrong name, type,
        rank, range or length.
    """
    with open_archive(f"source='{shown(name)}'", path) as archive:
        prefixes = _prefixes(archive.keys, name)
        images = {
            split: check_images(
                archive.read(f"{prefix}image"), name=f"{archive.label}, {prefix}image"
            )
            for split, prefix in prefixes.items()
        }
        labels = {
            split: check_labels(
                archive.read(f"{prefix}label"),
                len(images[split]),
                name=f"{archive.label}, {prefix}label",
            )
            for split, prefix in prefixes.items()
            if f"{prefix}label" in archive.keys
        }

    shapes = {split: array.shape[1:] for split, array in images.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"source='{shown(name)}': images of different shapes: {shapes}")
    if labels and len(labels) < len(images):
        raise ValueError(
            f"source='{shown(name)}': labels must be there for all of {sorted(images)} or none, got"
            f" {sorted(labels)}"
        )
    parts = {split: array_part(images[split], labels.get(split)) for split in images}
    splits = make_splits(parts, fold, name=name)
    classes = max(int(array.max(initial=0)) for array in labels.values()) + 1 if labels else None
    return Dataset(name=name, shape=shapes["train"], num_classes=classes, **splits)


def _prefixes(keys: list[str], name: str) -> dict[str, str]:
    """Maps each split that the archive holds to the prefix of its arrays' names."""
    if "image" in keys and "train_image" not in keys:
        return {"train": ""}
    if "train_image" in keys and "image" not in keys:
        return {split: f"{split}_" for split in SPLITS if f"{split}_image" in keys}
    raise ValueError(
        f"source='{shown(name)}': arrays must be {_KEYS}, got [{listed(sorted(keys))}]"
    )


_PREFIXES = {"train": "train", "test": "t10k"}

_UINT8 = 0x08  # the third byte of the magic number; the fourth is the number of axes

_SUFFIXES = ("", ".gz")


def open_idx(name: str, path: str, fold: int) -> Dataset:
    """Opens the four files in the folder at `path`.

    They are ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and the same two of ``t10k``,
    which is the test split; validation is carved out of train. Names may have a dot before ``idx``
    (``train-images.idx3-ubyte``) and may end in ``.gz``.

    A file is big-endian: the bytes 0, 0, the type (8 for uint8) and the number of axes, four bytes
    for the size of each axis, and the values. It is read as far as its head says.

    Raises:
      ValueError: A file is missing, not of this format, too short or too long, or doesn't fit the
        others.
    """
    folder = local_or_remote(path)
    if not folder.is_dir():
        raise ValueError(f"source='{shown(name)}': there is no such folder")

    def read(stem: str, axes: int) -> tuple[str, np.ndarray]:
        names = [
            f"{stem}{separator}idx{axes}-ubyte{suffix}"
            for separator in "-."
            for suffix in _SUFFIXES
        ]
        for file in names:
            if (folder / file).exists():
                label = f"source='{shown(name)}', {file}"
                return label, _read_idx(folder / file, axes, label)
        raise ValueError(
            f"source='{shown(name)}': there is no file {', '.join(names[:-1])} or {names[-1]}"
        )

    images, labels = {}, {}
    for split, prefix in _PREFIXES.items():
        label, array = read(f"{prefix}-images", 3)
        images[split] = check_images(array, name=label)
        label, array = read(f"{prefix}-labels", 1)
        labels[split] = check_labels(array, len(images[split]), name=label)
    shapes = {split: array.shape[1:] for split, array in images.items()}
    if shapes["train"] != shapes["test"]:
        raise ValueError(f"source='{shown(name)}': images of different shapes: {shapes}")
    parts = {split: array_part(images[split], labels[split]) for split in images}
    splits = make_splits(parts, fold, name=name)
    classes = max(int(array.max(initial=0)) for array in labels.values()) + 1
    return Dataset(name=name, shape=shapes["train"], num_classes=classes, **splits)


def _read_idx(file: Any, axes: int, label: str) -> UInt8[np.ndarray, "..."]:
    """Reads an IDX file, and no more of it than its head declares."""
    compressed = file.name.endswith(".gz")
    try:
        with open_regular(file) as (stream, size):
            if not compressed:
                return _decode(stream, axes, label, size, size)
            with gzip.GzipFile(fileobj=stream) as decompressed:
                return _decode(decompressed, axes, label, None, most_decompressed(size))
    except (OSError, EOFError, zlib.error) as error:
        problem = "decompressed" if compressed else "read"
        raise ValueError(f"{label}: can't be {problem}: {reason(error)}") from error


def _decode(
    stream: BinaryIO, axes: int, label: str, size: int | None, most: int
) -> UInt8[np.ndarray, "..."]:
    """Decodes an IDX file of a size that is known, or at most a bound."""
    start = 4 + 4 * axes
    head = bytearray(start)
    head = bytes(head[: read_into(stream, head)])
    magic = bytes([0, 0, _UINT8, axes])
    if head[:4] != magic:
        raise ValueError(
            f"{label}: must begin with the bytes {magic.hex(' ')}, of uint8 with {axes} axes, got"
            f" {head[:4].hex(' ') or 'none'}"
        )
    if len(head) < start:
        raise ValueError(
            f"{label}: must have a head of {start} bytes, got {len(head)} bytes in all"
        )
    shape = tuple(int(length) for length in np.frombuffer(head[4:], ">u4"))
    expected = start + math.prod(shape)
    must = f"{label}: must hold {expected} bytes for the shape {shape} of its head, got"
    if expected > most or size not in (expected, None):
        raise ValueError(f"{must} {size or f'a file that holds {most} at most'}")
    values = np.empty(math.prod(shape), np.uint8)
    filled = read_into(stream, values)
    if filled < len(values):
        raise ValueError(f"{must} {start + filled}")
    if stream.read(1):
        raise ValueError(f"{must} more")
    try:
        return values.reshape(shape)
    except ValueError as error:  # an empty one, whose other axes are too long even so
        raise ValueError(f"{label}: shape must be one of arrays, got {shape}") from error
