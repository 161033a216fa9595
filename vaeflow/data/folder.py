"""Image files in a folder."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import os
import warnings

import numpy as np
from etils import epath
from jaxtyping import Int, UInt8

from vaeflow.data.arrays import array_part
from vaeflow.data.dataset import Dataset
from vaeflow.data.pixels import Crop, crop_and_resize
from vaeflow.data.splits import SPLITS, Part, make_splits

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
BROKEN_SHARE = 0.05  # of all image files; with more of them broken, something else is wrong
_IN_MEMORY_BYTES = 2**30
_PARTITION_FILE = "list_eval_partition.txt"
_SPLIT_FOLDERS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
_GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")


@dataclasses.dataclass(frozen=True)
class _Header:
    """What an image file says of itself: (height, width) as seen upright, or why it is broken."""

    shape: tuple[int, int] = (0, 0)
    grey: bool = False
    error: str | None = None


def open_folder(name: str, path: str, fold: int, image_size: int | None, crop: Crop) -> Dataset:
    """Opens the image files under `path`, at any depth, in the order of their names.

    Files of the suffixes in `SUFFIXES` count, hidden ones don't. Each is turned upright as its
    EXIF orientation says, then cropped and resized (`vaeflow.data.pixels.crop_and_resize`). If
    every image is grey the data have one channel, else three; transparent pixels are laid over
    white; of an animation the first frame counts; 16-bit grey is brought to 8 bits.

    Splits are those that the folder has, in one of two ways: folders named ``train`` and
    ``validation`` (or ``valid``, ``val``) or ``test`` right under `path`; or CelebA's
    ``list_eval_partition.txt`` there, so that the official splits hold: unzip
    ``img_align_celeba.zip`` and put that file beside the folder that comes out. Otherwise the
    splits are carved out of all images.

    Every file is decoded once when the folder is opened. A broken one is named in a warning and
    left out (`Dataset.skipped`); more than one in twenty is an error. Prepared images are kept in
    memory up to 1 GiB in all; beyond that they are decoded anew at each read.

    Raises:
      ValueError: The folder is missing or holds no images, too many are broken, they are of
        different sizes and `image_size` is None, or a file belongs to no split.
    """
    _require_pillow(name)
    root = epath.Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(f"source={name!r}: there is no such folder")
    files = sorted(
        (file for file in root.rglob("*") if _is_image(file)),
        key=lambda file: file.relative_to(root).as_posix(),
    )
    if not files:
        raise ValueError(f"source={name!r}: holds no image files ({', '.join(SUFFIXES)})")

    names = [file.relative_to(root).as_posix() for file in files]
    split_of = _split_of(names, root, name)
    broken: dict[str, str] = {}
    with concurrent.futures.ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        headers = dict(zip(names, pool.map(_read_header, files), strict=True))
        broken |= {key: header.error for key, header in headers.items() if header.error}
        _check_broken(broken, len(files), name)
        good = {key: headers[key] for key in names if key not in broken}
        channels = 1 if all(header.grey for header in good.values()) else 3
        shape = (*_shape(good, image_size, crop, name), channels)

        by_name = dict(zip(names, files, strict=True))
        decode = functools.partial(_decode, channels=channels, image_size=image_size, crop=crop)
        keep = len(good) * int(np.prod(shape)) <= _IN_MEMORY_BYTES
        kept: dict[str, np.ndarray] = {}
        for key, (image, error) in zip(
            good, pool.map(lambda key: _try_decode(decode, by_name[key]), good), strict=True
        ):
            if error:
                broken[key] = error
            elif keep:
                kept[key] = image
    _check_broken(broken, len(files), name)
    if broken:
        warnings.warn(
            f"{name}: skipped {len(broken)} of {len(files)} files that can't be read as images:"
            f" {_listed(broken)}",
            stacklevel=2,
        )

    parts = {}
    for split in SPLITS:
        members = [key for key in good if key not in broken and split_of[key] == split]
        if members and keep:
            parts[split] = array_part(np.stack([kept.pop(key) for key in members]))
        elif members:
            parts[split] = _file_part([by_name[key] for key in members], decode)
    if "train" not in parts:
        raise ValueError(f"source={name!r}: its train split is empty")
    splits = make_splits(parts, fold, name=name)
    return Dataset(name=name, shape=shape, classes=None, skipped=tuple(sorted(broken)), **splits)


def _require_pillow(name: str) -> None:
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"source={name!r}: needs the package pillow; pip install 'vaeflow[experiments]'"
        ) from error


def _is_image(file: epath.Path) -> bool:
    hidden = file.name.startswith(".")
    return not hidden and file.suffix.lower() in SUFFIXES and file.is_file()


def _file_part(files: list[epath.Path], decode) -> Part:
    def read(rows: Int[np.ndarray, " batch"]) -> tuple[UInt8[np.ndarray, "batch h w c"], None]:
        return np.stack([decode(files[row]) for row in rows]), None

    return Part(read, len(files))


def _split_of(names: list[str], root: epath.Path, name: str) -> dict[str, str]:
    """Says which split each file belongs to; all to train where the folder has no splits."""
    partition = root / _PARTITION_FILE
    if partition.is_file():
        lines = [line.split() for line in partition.read_text().splitlines() if line.strip()]
        if any(len(line) != 2 or line[1] not in ("0", "1", "2") for line in lines):
            raise ValueError(
                f"source={name!r}: {_PARTITION_FILE} has lines other than 'NAME 0|1|2'"
            )
        listed = {file: SPLITS[int(number)] for file, number in lines}
        splits = {key: listed.get(key.rpartition("/")[2]) for key in names}
        where = f"not listed in {_PARTITION_FILE}"
    else:
        top = {key: key.partition("/")[0] if "/" in key else "" for key in names}
        found = {_SPLIT_FOLDERS[folder] for folder in top.values() if folder in _SPLIT_FOLDERS}
        if not ("train" in found and len(found) > 1):
            return dict.fromkeys(names, "train")
        splits = {key: _SPLIT_FOLDERS.get(top[key]) for key in names}
        where = f"outside the folders of its splits ({', '.join(_SPLIT_FOLDERS)})"
    strays = [key for key, split in splits.items() if split is None]
    if strays:
        raise ValueError(f"source={name!r}: {_listed(strays)} {where}")
    return splits


def _read_header(file: epath.Path) -> _Header:
    from PIL import Image

    try:
        with file.open("rb") as stream, Image.open(stream) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            grey = image.mode in _GREY_MODES
            if image.mode == "P":
                grey = _is_grey_palette(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return _Header(error=_reason(error))
    return _Header((width, height) if turned else (height, width), grey)


def _is_grey_palette(image) -> bool:
    palette = np.array(image.getpalette("RGB")).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())


def _decode(
    file: epath.Path, *, channels: int, image_size: int | None, crop: Crop
) -> UInt8[np.ndarray, "height width channel"]:
    from PIL import Image, ImageOps

    with file.open("rb") as stream, Image.open(stream) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion would clip them to 8
            deep = np.asarray(image).astype(np.int64)
            if deep.min(initial=0) < 0 or deep.max(initial=0) > 65535:
                raise ValueError("pixels beyond 16 bits")
            image = Image.fromarray(((deep * 255 + 32767) // 65535).astype(np.uint8))
        if image.mode == "F":
            raise ValueError("floating-point pixels")
        if image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    pixels = pixels[:, :, np.newaxis] if channels == 1 else pixels
    return crop_and_resize(pixels, image_size, crop)


def _try_decode(decode, file: epath.Path) -> tuple[np.ndarray | None, str | None]:
    from PIL import Image

    try:
        return decode(file), None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return None, _reason(error)


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _check_broken(broken: dict[str, str], count: int, name: str) -> None:
    if len(broken) > BROKEN_SHARE * count:
        raise ValueError(
            f"source={name!r}: {len(broken)} of {count} files can't be read as images, allowed are"
            f" {BROKEN_SHARE:.0%}: {_listed(broken)}"
        )


def _listed(names, most: int = 5) -> str:
    """Names the first few, with reasons where there are any."""
    names = {key: names[key] if isinstance(names, dict) else None for key in names}
    shown = [f"{key} ({why})" if why else key for key, why in list(names.items())[:most]]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")


def _shape(
    headers: dict[str, _Header], image_size: int | None, crop: Crop, name: str
) -> tuple[int, int]:
    """Height and width after cropping and resizing; without either, all must be alike."""
    first, one = next(iter(headers.items()))
    if crop == "celeba":
        # The one error that crop_and_resize raises, before anything is decoded.
        for key, header in headers.items():
            try:
                small = np.zeros((*header.shape, 1), np.uint8)
                crop_and_resize(small, None, crop)
            except ValueError as error:
                raise ValueError(f"source={name!r}, {key}: {error}") from None
    if image_size is not None:
        return image_size, image_size
    for key, header in headers.items():
        if header.shape != one.shape:
            raise ValueError(
                f"source={name!r}: images of different sizes, {first} {_size(one)} and"
                f" {key} {_size(header)}; give image_size"
            )
    return (148, 148) if crop == "celeba" else one.shape


def _size(header: _Header) -> str:
    return f"{header.shape[0]}x{header.shape[1]}"
