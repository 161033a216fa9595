"""Single image files: what one says of itself, and its pixels."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
from jaxtyping import UInt8

from vaeflow.data.pixels import Crop, crop_and_resize

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

_GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
_ORIENTATION = 0x0112
_QUARTER_TURNED = (5, 6, 7, 8)


@dataclasses.dataclass(frozen=True)
class Header:
    """What an image file says of itself before its pixels are decoded.

    Attributes:
      shape: (height, width) once the image is upright.
      grey: Whether it has no colours.
    """

    shape: tuple[int, int]
    grey: bool


def is_image_file(file: pathlib.Path) -> bool:
    """Whether a path is a visible file with one of `SUFFIXES`."""
    return not file.name.startswith(".") and file.suffix.lower() in SUFFIXES and file.is_file()


def read_header(file: pathlib.Path) -> Header:
    """Reads the header.

    Raises:
      ValueError: The file can't be read as an image; the message is the reason alone.
    """
    from PIL import Image

    try:
        with file.open("rb") as stream, Image.open(stream) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) in _QUARTER_TURNED
            grey = image.mode in _GREY_MODES or (image.mode == "P" and _has_grey_palette(image))
    except Exception as error:  # decoders raise any type on malformed files
        raise ValueError(_reason(error)) from error
    return Header((width, height) if turned else (height, width), grey)


def decode(
    file: pathlib.Path, channels: int, image_size: int | None, crop: Crop
) -> UInt8[np.ndarray, "height width channel"]:
    """Reads the upright, cropped and resized pixels.

    Raises:
      ValueError: As `read_header` does.
    """
    try:
        return crop_and_resize(_pixels(file, channels), image_size, crop)
    except Exception as error:  # decoders raise any type on malformed files
        raise ValueError(_reason(error)) from error


def _pixels(file: pathlib.Path, channels: int) -> UInt8[np.ndarray, "height width channel"]:
    from PIL import Image, ImageOps

    with file.open("rb") as stream, Image.open(stream) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode == "F":
            raise ValueError("floating-point pixels")
        if image.mode.startswith("I"):  # 16 bits, which Pillow's own conversion clips to 8
            deep = np.asarray(image).astype(np.int64)
            if deep.min() < 0 or deep.max() > 65535:
                raise ValueError("pixels beyond 16 bits")
            image = Image.fromarray(((deep * 255 + 32767) // 65535).astype(np.uint8))
        if image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        if channels == 1:
            return np.asarray(image.convert("L"))[:, :, np.newaxis]
        return np.asarray(image.convert("RGB"))


def _has_grey_palette(image) -> bool:
    palette = np.array(image.getpalette("RGB")).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
