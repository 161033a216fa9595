"""Image files in a folder."""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from vaeflow.data.arrays import array_part
from vaeflow.data.dataset import Dataset
from vaeflow.data.image_files import SUFFIXES, Header, decode, is_image_file, read_header
from vaeflow.data.packages import missing_package
from vaeflow.data.pixels import CELEBA_CROP_SHAPE, Crop, check_crop
from vaeflow.data.splits import SPLITS, Part, make_splits

T = TypeVar("T")

BROKEN_SHARE = 0.05  # with more broken files than this something else is wrong

_IN_MEMORY_BYTES = 2**30
_PARTITION_FILE = "list_eval_partition.txt"
_SPLIT_FOLDERS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}


def open_folder(name: str, path: str, fold: int, image_size: int | None, crop: Crop) -> Dataset:
    """Opens the image files under `path`, at any depth, in the order of their names.

    Files with a suffix of common image formats count; hidden ones don't. Each is turned upright as
    its EXIF orientation says, then cropped and resized (`vaeflow.data.pixels.crop_and_resize`). If
    every image is grey the data have one channel, else three; what is transparent is laid over
    white; of an animation the first frame counts; 16-bit grey is brought to 8 bits.

    Splits are those that the folder has, in one of two ways: folders named ``train`` and
    ``validation`` (or ``valid``, ``val``) or ``test`` right under `path`; or CelebA's
    ``list_eval_partition.txt`` there, so that the official splits hold (unzip
    ``img_align_celeba.zip`` and put that file beside the folder that comes out). Otherwise the
    splits are carved out of all images.

    Every file is decoded once when the folder is opened. A broken one is named in a warning and
    left out (`Dataset.skipped`); more than one in twenty is an error. Prepared images are kept in
    memory up to 1 GiB in all; beyond that they are decoded anew whenever they are read.

    Args:
      name: The source string.
      path: The folder.
      fold: Which fold to hold out, where splits are carved.
      image_size: Height and width to bring images to, or None to leave them.
      crop: What to cut out first.

    Raises:
      ValueError: The folder is missing or holds no images, too many are broken, they are of
        different sizes and `image_size` is None, or a file belongs to no split.
    """
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise missing_package(f"source={name!r}", "pillow") from error
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(f"source={name!r}: there is no such folder")
    found = {
        file.relative_to(root).as_posix(): file for file in root.rglob("*") if is_image_file(file)
    }
    files = {key: found[key] for key in sorted(found)}
    if not files:
        raise ValueError(f"source={name!r}: holds no image files ({', '.join(SUFFIXES)})")
    split_of = _split_of(list(files), root, name)

    with concurrent.futures.ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        headers, broken = _attempt(pool, read_header, files)
        _refuse_too_many(broken, len(files), name)
        channels = 1 if all(header.grey for header in headers.values()) else 3
        shape = (*_shape(headers, image_size, crop, name), channels)
        keep = len(headers) * int(np.prod(shape)) <= _IN_MEMORY_BYTES

        def read(file: pathlib.Path) -> np.ndarray:
            return decode(file, channels, image_size, crop)

        images, undecoded = _attempt(
            pool,
            read if keep else lambda file: read(file) is None,  # decoded, but not kept
            {key: files[key] for key in headers},
        )
    broken = dict(sorted((broken | undecoded).items()))
    _refuse_too_many(broken, len(files), name)
    if broken:
        warnings.warn(
            f"{name}: skipped {len(broken)} of {len(files)} files that can't be read as images:"
            f" {_listed(broken)}",
            stacklevel=2,
        )

    parts = {}
    for split in SPLITS:
        members = [key for key in images if split_of[key] == split]
        if members and keep:
            parts[split] = array_part(np.stack([images[key] for key in members]))
        elif members:
            parts[split] = _file_part([files[key] for key in members], read, name)
    if "train" not in parts:
        raise ValueError(f"source={name!r}: its train split is empty")
    splits = make_splits(parts, fold, name=name)
    return Dataset(name=name, shape=shape, classes=None, skipped=tuple(broken), **splits)


def _attempt(
    pool: concurrent.futures.Executor,
    function: Callable[[pathlib.Path], T],
    files: Mapping[str, pathlib.Path],
) -> tuple[dict[str, T], dict[str, str]]:
    """Applies `function` to every file; returns the results, and the reasons where it failed."""

    def one(file: pathlib.Path) -> tuple[T | None, str | None]:
        try:
            return function(file), None
        except ValueError as error:
            return None, str(error)

    outcomes = dict(zip(files, pool.map(one, files.values()), strict=True))
    results = {key: result for key, (result, reason) in outcomes.items() if reason is None}
    return results, {key: reason for key, (_, reason) in outcomes.items() if reason is not None}


def _file_part(
    files: Sequence[pathlib.Path], read: Callable[[pathlib.Path], np.ndarray], name: str
) -> Part:
    def read_rows(rows: np.ndarray) -> tuple[np.ndarray, None]:
        images = []
        for row in rows:
            try:
                images.append(read(files[row]))
            except ValueError as error:
                raise ValueError(
                    f"source={name!r}: {files[row]} can't be read any more: {error}"
                ) from error
        return np.stack(images), None

    return Part(read_rows, len(files))


def _split_of(keys: list[str], root: pathlib.Path, name: str) -> dict[str, str]:
    """Says which split each file belongs to: train for all where the folder has no splits."""
    partition = root / _PARTITION_FILE
    if partition.is_file():
        lines = [line.split() for line in partition.read_text().splitlines() if line.strip()]
        if any(len(line) != 2 or line[1] not in ("0", "1", "2") for line in lines):
            raise ValueError(f"source={name!r}: {_PARTITION_FILE} has lines other than NAME 0|1|2")
        listed = {file: SPLITS[int(number)] for file, number in lines}
        splits = {key: listed.get(key.rpartition("/")[2]) for key in keys}
        stray = f"not listed in {_PARTITION_FILE}"
    else:
        splits = {key: _SPLIT_FOLDERS.get(key.partition("/")[0]) for key in keys}
        found = set(splits.values()) - {None}
        if "train" not in found or len(found) == 1:
            return dict.fromkeys(keys, "train")
        stray = f"outside the folders of the splits ({', '.join(_SPLIT_FOLDERS)})"
    strays = {key: stray for key, split in splits.items() if split is None}
    if strays:
        raise ValueError(f"source={name!r}: {_listed(strays)}")
    return splits


def _refuse_too_many(broken: Mapping[str, str], count: int, name: str) -> None:
    if len(broken) > BROKEN_SHARE * count:
        raise ValueError(
            f"source={name!r}: {len(broken)} of {count} files can't be read as images; allowed are"
            f" {BROKEN_SHARE:.0%}: {_listed(broken)}"
        )


def _listed(reasons: Mapping[str, str], most: int = 5) -> str:
    shown = [f"{key} ({reason})" for key, reason in list(reasons.items())[:most]]
    return ", ".join(shown) + (f" and {len(reasons) - most} more" if len(reasons) > most else "")


def _shape(
    headers: Mapping[str, Header], image_size: int | None, crop: Crop, name: str
) -> tuple[int, int]:
    """Height and width after cropping and resizing; without either, all must be alike."""
    for key, header in headers.items():
        check_crop(header.shape, crop, name=f"source={name!r}, {key}")
    if image_size is not None:
        return image_size, image_size
    if crop == "celeba":
        return CELEBA_CROP_SHAPE
    (first, expected), *others = ((key, header.shape) for key, header in headers.items())
    for key, shape in others:
        if shape != expected:
            raise ValueError(
                f"source={name!r}: images of different sizes, {first} {expected[0]}x{expected[1]}"
                f" and {key} {shape[0]}x{shape[1]}; give image_size"
            )
    return expected
