"""The pixels of single image files."""

from __future__ import annotations

import pathlib

import numpy as np
from jaxtyping import UInt8

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

_GREY_MODES = ("1", "L", "LA", "La")


def is_image_file(file: pathlib.Path) -> bool:
    """Whether a path is a visible file with one of `SUFFIXES`."""
    return not file.name.startswith(".") and file.suffix.lower() in SUFFIXES and file.is_file()


def read_image(file: pathlib.Path) -> UInt8[np.ndarray, "height width channel"]:
    """Reads an image upright, as its EXIF orientation says; one channel if it is grey, else three.

    What is transparent is laid over white; of an animation the first frame counts; 16-bit grey is
    brought to 8 bits.

    Raises:
      ValueError: The file can't be read as an image; the message is the reason alone.
    """
    try:
        return _read(file)
    except Exception as error:  # decoders raise any type on malformed files
        raise ValueError((str(error) or type(error).__name__).splitlines()[0]) from error


def _read(file: pathlib.Path) -> UInt8[np.ndarray, "height width channel"]:
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
        grey = image.mode in _GREY_MODES or (image.mode == "P" and _has_grey_palette(image))
        if image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        pixels = np.asarray(image.convert("L" if grey else "RGB"))
    return pixels[:, :, np.newaxis] if grey else pixels


def _has_grey_palette(image) -> bool:
    palette = np.array(image.getpalette("RGB")).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())
