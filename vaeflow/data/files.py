"""Images from NumPy archives (``npz:PATH``) and from IDX files as MNIST has (``idx:PATH``)."""

from __future__ import annotations

import contextlib
import gzip
import math
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from vaeflow._util.files import missing_package
from vaeflow.data.dataset import SPLITS, Dataset, array_part, make_splits
from vaeflow.data.images import check_images, check_labels


@contextlib.contextmanager
def open_archive(name: str, path: str) -> Iterator[np.lib.npyio.NpzFile]:
    """Opens the archive at `path`, of any kind that `etils.epath` knows.

    Args:
      name: The source string, for error messages.
      path: The ``.npz`` file.

    Raises:
      ValueError: The file is missing or isn't an archive.
    """
    try:
        from etils import epath
    except ImportError as error:
        raise missing_package(f"source={name!r}", "etils") from error
    file = epath.Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"source={name!r}: there is no such file")
    with file.open("rb") as stream:
        if not zipfile.is_zipfile(stream):
            raise ValueError(f"source={name!r}: not an .npz archive")
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as archive:
            yield archive


def read_array(archive: np.lib.npyio.NpzFile, key: str, name: str) -> np.ndarray:
    """Reads one array.

    Raises:
      ValueError: It holds Python objects or is damaged.
    """
    try:
        return archive[key]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise ValueError(
                f"source={name!r}: {key} must be a plain numeric array, got Python objects, which"
                " are never unpickled"
            ) from error
        raise ValueError(f"source={name!r}: {key} can't be read: {error}") from error


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
    shape [count]. Arrays under other names are ignored. Nothing is ever unpickled.

    Raises:
      ValueError: The file is missing or isn't an archive, or an array is of the wrong name, type,
        rank, range or length.
    """
    with open_archive(name, path) as archive:
        prefixes = _prefixes(archive.files, name)
        images = {
            split: check_images(
                read_array(archive, f"{prefix}image", name), name=f"source={name!r}, {prefix}image"
            )
            for split, prefix in prefixes.items()
        }
        labels = {
            split: check_labels(
                read_array(archive, f"{prefix}label", name),
                len(images[split]),
                name=f"source={name!r}, {prefix}label",
            )
            for split, prefix in prefixes.items()
            if f"{prefix}label" in archive.files
        }

    shapes = {split: array.shape[1:] for split, array in images.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"source={name!r}: images of different shapes: {shapes}")
    if labels and len(labels) < len(images):
        raise ValueError(
            f"source={name!r}: labels must be there for all of {sorted(images)} or none, got"
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
    raise ValueError(f"source={name!r}: arrays must be {_KEYS}, got {sorted(keys)}")


_PREFIXES = {"train": "train", "test": "t10k"}

_UINT8 = 0x08  # the third byte of the magic number; the fourth is the number of axes

_SUFFIXES = ("", ".gz")


def open_idx(name: str, path: str, fold: int) -> Dataset:
    """Opens the four files in the folder at `path`.

    They are ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and the same two of ``t10k``,
    which is the test split; validation is carved out of train. Names may have a dot before ``idx``
    (``train-images.idx3-ubyte``) and may end in ``.gz``.

    A file is big-endian: the bytes 0, 0, the type (8 for uint8) and the number of axes, four bytes
    for the size of each axis, and the values.

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
                label = f"source={name!r}, {file}"
                return label, _parse(_bytes(folder / file, label), axes, label)
        raise ValueError(
            f"source={name!r}: there is no file {', '.join(names[:-1])} or {names[-1]}"
        )

    images, labels = {}, {}
    for split, prefix in _PREFIXES.items():
        label, array = read(f"{prefix}-images", 3)
        images[split] = check_images(array, name=label)
        label, array = read(f"{prefix}-labels", 1)
        labels[split] = check_labels(array, len(images[split]), name=label)
    shapes = {split: array.shape[1:] for split, array in images.items()}
    if shapes["train"] != shapes["test"]:
        raise ValueError(f"source={name!r}: images of different shapes: {shapes}")
    parts = {split: array_part(images[split], labels[split]) for split in images}
    splits = make_splits(parts, fold, name=name)
    classes = max(int(array.max(initial=0)) for array in labels.values()) + 1
    return Dataset(name=name, shape=shapes["train"], num_classes=classes, **splits)


def _bytes(file, label: str) -> bytes:
    content = file.read_bytes()
    if not file.name.endswith(".gz"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{label}: can't be decompressed: {error}") from error


def _parse(content: bytes, axes: int, label: str) -> UInt8[np.ndarray, "..."]:
    """Decodes the bytes of an IDX file."""
    magic = bytes([0, 0, _UINT8, axes])
    if content[:4] != magic:
        raise ValueError(
            f"{label}: must begin with the bytes {magic.hex(' ')}, of uint8 with {axes} axes, got"
            f" {content[:4].hex(' ') or 'none'}"
        )
    start = 4 + 4 * axes
    if len(content) < start:
        raise ValueError(
            f"{label}: must have a head of {start} bytes, got {len(content)} bytes in all"
        )
    shape = tuple(int(size) for size in np.frombuffer(content[4:start], ">u4"))
    expected = start + math.prod(shape)
    if len(content) != expected:
        raise ValueError(
            f"{label}: must hold {expected} bytes for the shape {shape} of its head, got"
            f" {len(content)}"
        )
    return np.frombuffer(content[start:], np.uint8).reshape(shape)
