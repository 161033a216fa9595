"""Image files, and folders of them (``folder:PATH``) with their own splits or carved ones."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import pathlib
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from jaxtyping import Float, UInt8

from vaeflow._util.files import missing_package, package_file
from vaeflow._util.messages import listed, reason, shown
from vaeflow._util.reading import most_decompressed, open_regular
from vaeflow.data.dataset import SPLITS, Dataset, Part, array_part, make_splits
from vaeflow.data.images import Crop, check_crop, crop_and_resize

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats of Pillow that are decoded: others may start programs, as PostScript does."""

_GREY_MODES = ("1", "L", "LA", "La")


def is_image_file(file: pathlib.Path) -> bool:
    """Returns whether a path is a visible file with one of `SUFFIXES`."""
    return not file.name.startswith(".") and file.suffix.lower() in SUFFIXES and file.is_file()


def read_image(file: pathlib.Path) -> UInt8[np.ndarray, "height width channel"]:
    """Reads an image upright, as its EXIF orientation says; one channel if it is grey, else three.

    What is transparent is laid over white; of an animation the first frame counts; 16-bit grey is
    brought to 8 bits.

    Raises:
      ValueError: The file can't be read as an image; the message is the reason alone.
    """
    with _reasons(), open_regular(file) as (stream, size):
        return decode_image(stream, size)


@contextlib.contextmanager
def _reasons() -> Iterator[None]:
    from PIL import UnidentifiedImageError

    try:
        yield
    except UnidentifiedImageError as error:  # whose message is the file's path
        raise ValueError("no image of a known format") from error
    except Exception as error:  # decoders raise any type on malformed files
        raise ValueError(reason(error)) from error


_LARGE = 2**24  # bytes

_ONE_AT_A_TIME = threading.Lock()
"""Held while a large image is decoded, of which one may take several times its size."""


def decode_image(stream: BinaryIO, size: int) -> UInt8[np.ndarray, "height width channel"]:
    """Decodes the content of an image file, of `size` bytes, as `read_image` does.

    Raises:
      ValueError: It can't be read as an image; the message is the reason alone.
    """
    from PIL import Image

    with _reasons(), Image.open(stream, formats=_FORMATS) as image:
        needed = _bytes_per_pixel(image) * image.width * image.height
        if needed > most_decompressed(size):
            raise ValueError(f"{image.width}x{image.height} pixels in {size} bytes: too many")
        with _ONE_AT_A_TIME if needed > _LARGE else contextlib.nullcontext():
            return upright_pixels(image)


def _bytes_per_pixel(image: Image.Image) -> int:
    if image.mode.startswith(("I", "F")):
        return 8  # computed with in int64
    return 1 if image.mode in ("1", "L") and not image.has_transparency_data else 4


def upright_pixels(image: Image.Image) -> UInt8[np.ndarray, "height width channel"]:
    """Returns the pixels of an image of Pillow, as `read_image` does."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels")
    if image.mode.startswith("I"):  # 16 bits, which Pillow's own conversion clips to 8
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65535:
            raise ValueError("pixels beyond 16 bits")
        image = Image.fromarray(((deep * 255 + 32767) // 65535).astype(np.uint8))
    grey = image.mode in _GREY_MODES or (image.mode == "P" and _has_grey_palette(image))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    pixels = np.asarray(image.convert("L" if grey else "RGB"))
    return pixels[:, :, np.newaxis] if grey else pixels


def _has_grey_palette(image) -> bool:
    palette = np.array(image.getpalette("RGB")).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())


CAMERA = "embedded:camera"
"""Stands for a photograph that scikit-image ships, 512 by 512 pixels."""


def read_grey_image(path: str) -> Float[np.ndarray, "row column"]:
    """Reads the brightness of each pixel of an image, from 0 to 1; row 0 is the top.

    Colours become grey by their luma (ITU-R BT.601).

    Args:
      path: An image file, or `embedded:camera` for a photographer, 512 by 512 pixels, that
        scikit-image ships.

    Raises:
      ValueError: The file is missing or can't be read as an image.
    """
    if path == CAMERA:
        file = package_file(path, "scikit-image", "skimage", "data/camera.png")
    else:
        file = pathlib.Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"image {shown(path)} is missing: no such file")
    try:
        pixels = read_image(file)
    except ValueError as error:
        raise ValueError(f"image {shown(path)} can't be read: {error}") from error
    channels = pixels.shape[-1]
    weights = np.array([0.299, 0.587, 0.114] if channels == 3 else [1.0])
    return (pixels @ weights / 255).astype(np.float32)


BROKEN_SHARE = 0.05  # with more broken files than this something else is wrong

_IN_MEMORY_BYTES = 2**30

_PARTITION_FILE = "list_eval_partition.txt"

_MOST_TEXT = 2**26  # bytes; that of CelebA has 3 million

_SPLIT_FOLDERS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}


def open_folder(name: str, path: str, fold: int, image_size: int | None, crop: Crop) -> Dataset:
    """Opens the image files under `path`, at any depth, in the order of their names.

    Files with a suffix of common image formats count; hidden ones don't. Each is turned upright
    (`vaeflow.data.folder.read_image`), then cropped and resized
    (`vaeflow.data.images.crop_and_resize`). If every image is grey the data have one channel, else
    three.

    Splits are those that the folder has, in one of two ways: folders named ``train`` and
    ``validation`` (or ``valid``, ``val``) or ``test`` right under `path`, in
    upper or lower case; or CelebA's
    ``list_eval_partition.txt`` there, so that the official splits hold (unzip
    ``img_align_celeba.zip`` and put that file next to the folder that comes out). Otherwise the
    splits are carved out of all images.

    Every file is decoded once when the folder is opened. A broken one is named in a warning and
    left out (`Dataset.skipped`); more than one in twenty is an error. Prepared images stay in
    memory up to 1 GiB in all; beyond that they are decoded whenever they are read. An image with
    far more pixels than files of its size hold counts as broken.

    Args:
      name: The source string.
      path: The folder.
      fold: Which fold to hold out, where splits are carved.
      image_size: Height and width to bring images to, or None to leave them.
      crop: Cropping before resizing.

    Raises:
      ValueError: The folder is missing or holds no images, too many are broken, they are of
        different sizes and `image_size` is None, or a file belongs to no split.
    """
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise missing_package(f"source='{shown(name)}'", "pillow") from error
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(f"source='{shown(name)}': there is no such folder")
    files = {
        file.relative_to(root).as_posix(): file for file in root.rglob("*") if is_image_file(file)
    }
    files = dict(sorted(files.items()))
    if not files:
        raise ValueError(f"source='{shown(name)}': holds no image files ({', '.join(SUFFIXES)})")
    split_of = _split_of(list(files), root, name)

    images, broken, shape = _read_all(files, image_size, crop, name)
    if broken:
        warnings.warn(
            f"{shown(name)}: skipped {len(broken)} of {len(files)} files that can't be read as"
            f" images: {_listed(broken)}",
            stacklevel=2,
        )

    parts, in_memory = {}, bool(images)
    for split in SPLITS:
        members = [key for key in files if key not in broken and split_of[key] == split]
        if members and in_memory:
            stacked = np.empty((len(members), *shape), np.uint8)
            for row, key in zip(stacked, members, strict=True):
                row[...] = images.pop(key)  # never twice in memory
            parts[split] = array_part(stacked)
        elif members:
            parts[split] = _file_part([files[key] for key in members], shape, image_size, crop)
    if "train" not in parts:
        raise ValueError(f"source='{shown(name)}': its train split is empty")
    splits = make_splits(parts, fold, name=name)
    return Dataset(name=name, shape=shape, num_classes=None, skipped=tuple(broken), **splits)


def _read_all(
    files: Mapping[str, pathlib.Path], image_size: int | None, crop: Crop, name: str
) -> tuple[dict[str, np.ndarray], dict[str, str], tuple[int, int, int]]:
    """Decodes every file once.

    Returns:
      The prepared images, or nothing where they are too many to keep; the reasons why the broken
      ones can't be read; and the shape that all images have once grey ones are widened.
    """

    def attempt(item: tuple[str, pathlib.Path]) -> tuple[str, np.ndarray | None, str]:
        key, file = item
        try:
            image = read_image(file)
        except ValueError as error:
            return key, None, reason(error)
        check_crop(image.shape, crop, name=f"source='{shown(name)}', {shown(key, 80)}")
        return key, crop_and_resize(image, image_size, crop), ""

    images: dict[str, np.ndarray] = {}
    broken: dict[str, str] = {}
    first, size, channels, used = "", None, 1, 0
    most = min(
        _IN_MEMORY_BYTES, most_decompressed(sum(file.stat().st_size for file in files.values()))
    )
    pool = concurrent.futures.ThreadPoolExecutor(min(16, os.cpu_count() or 1))
    try:
        for key, image, problem in pool.map(attempt, files.items()):
            if image is None:
                broken[key] = problem
                continue
            if size is None:
                first, size = key, image.shape[:2]
            if image.shape[:2] != size:
                raise ValueError(
                    f"source='{shown(name)}': images of different sizes,"
                    f" {shown(first, 80)} {size[0]}x{size[1]} and"
                    f" {shown(key, 80)} {image.shape[0]}x{image.shape[1]}; give image_size"
                )
            channels = max(channels, image.shape[2])
            used += image.nbytes
            if used <= most:
                images[key] = image
            else:
                images.clear()
    finally:  # an error must not wait for the files still to be read
        pool.shutdown(cancel_futures=True)
    if len(broken) > BROKEN_SHARE * len(files):
        raise ValueError(
            f"source='{shown(name)}': at most {BROKEN_SHARE:.0%} of the files must be unreadable,"
            f" got {len(broken)} of {len(files)}: {_listed(broken)}"
        )
    shape = (*size, channels)
    if len(images) * int(np.prod(shape)) > most:  # grey ones grow when widened
        images.clear()
    return images, broken, shape


def _widen(image: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Repeats a grey image's channel where other images have colours."""
    return np.broadcast_to(image, shape)


def _file_part(
    files: Sequence[pathlib.Path], shape: tuple[int, int, int], image_size: int | None, crop: Crop
) -> Part:
    def read(rows: np.ndarray) -> dict[str, np.ndarray]:
        images = []
        for row in rows:
            try:
                image = read_image(files[row])
            except ValueError as error:
                raise ValueError(f"{shown(files[row])} can't be read any more: {error}") from error
            images.append(_widen(crop_and_resize(image, image_size, crop), shape))
        return {"image": np.stack(images)}

    return Part(read, len(files))


def _split_of(keys: list[str], root: pathlib.Path, name: str) -> dict[str, str]:
    """Returns the split of each file: train for all where the folder has no splits."""
    partition = root / _PARTITION_FILE
    if partition.exists():
        lines = [line.split() for line in _read_text(partition, name).splitlines() if line.strip()]
        if any(len(line) != 2 or line[1] not in ("0", "1", "2") for line in lines):
            raise ValueError(
                f"source='{shown(name)}': {_PARTITION_FILE} has lines other than NAME 0|1|2"
            )
        if len({file for file, _ in lines}) < len(lines):
            raise ValueError(f"source='{shown(name)}': {_PARTITION_FILE} lists a file twice")
        split_of = {file: SPLITS[int(number)] for file, number in lines}
        splits = {key: split_of.get(key.rpartition("/")[2]) for key in keys}
        stray = f"aren't listed in {_PARTITION_FILE}"
    else:
        splits = {key: _SPLIT_FOLDERS.get(key.partition("/")[0].lower()) for key in keys}
        present = set(splits.values()) - {None}
        if "train" not in present or len(present) == 1:
            return dict.fromkeys(keys, "train")
        stray = f"lie outside the folders of the splits ({', '.join(_SPLIT_FOLDERS)})"
    strays = [key for key, split in splits.items() if split is None]
    if strays:
        raise ValueError(f"source='{shown(name)}': {listed(strays)} {stray}")
    return splits


def _read_text(file: pathlib.Path, name: str) -> str:
    try:
        with open_regular(file) as (stream, size):
            if size > _MOST_TEXT:
                raise ValueError(f"it has {size} bytes, of at most {_MOST_TEXT}")
            return stream.read(size).decode()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"source='{shown(name)}': {file.name} can't be read: {reason(error)}"
        ) from error


def _listed(reasons: Mapping[str, str], most: int = 3) -> str:
    first = [f"{shown(key, 50)} ({shown(why, 40)})" for key, why in list(reasons.items())[:most]]
    return ", ".join(first) + (f" and {len(reasons) - most} more" if len(reasons) > most else "")
