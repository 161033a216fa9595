"""Folders of image files."""

from __future__ import annotations

import functools
import io
import pathlib
import struct
import zlib
from collections.abc import Mapping

import numpy as np
from PIL import Image

from tests.fuzz.mutations import SPECIAL, damaged, name_of, pick, same, special_file
from tests.fuzz.oracle import Input
from vaeflow import data

COUNT = 24
IMAGES = np.random.RandomState(0).randint(0, 256, (COUNT, 6, 5)).astype(np.uint8)

PARTITION = "list_eval_partition.txt"


@functools.cache
def encoded(number: int, kind: str) -> bytes:
    """The bytes of an image file."""
    content = io.BytesIO()
    Image.fromarray(IMAGES[number]).save(content, kind)
    return content.getvalue()


def right(shown: Mapping[str, int], dataset: data.Dataset) -> bool:
    """Whether a data set holds the images of so named files, and perhaps others."""
    names = sorted(name for name in shown if name not in dataset.skipped)
    parts = [data.stack(getattr(dataset, split)) for split in ("train", "validation", "test")]
    whole = np.concatenate([part["image"] for part in parts])
    held = {image.tobytes() for image in whole[..., 0]}
    return all(IMAGES[shown[name]].tobytes() in held for name in names) and len(whole) >= len(names)


def in_splits(dataset: data.Dataset) -> bool:
    """Whether the first 16 images are the training set, 4 each the other splits."""
    found = [data.stack(getattr(dataset, split))["image"][..., 0] for split in data.dataset.SPLITS]
    return all(map(same, found, (IMAGES[:16], IMAGES[16:20], IMAGES[20:])))


def _chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


@functools.cache
def png_bomb(width: int, height: int, kind: int) -> bytes:
    """A PNG of black pixels, of 8 bits a channel: grey 0, colour 2, palette 3, transparent 6."""
    channels = {0: 1, 2: 3, 3: 1, 6: 4}[kind]
    compressor = zlib.compressobj(1)
    row = bytes(1 + width * channels)
    rows = b"".join(compressor.compress(row) for _ in range(height)) + compressor.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    palette = _chunk(b"PLTE", bytes(3)) + _chunk(b"tRNS", b"\0") if kind == 3 else b""
    chunks = _chunk(b"IHDR", head) + palette + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def crafted(random: np.random.Generator) -> tuple[str, bytes]:
    """The bytes of a file that isn't the image that it seems to be."""
    side = pick(random, [2**16, 2**20, 2**31 - 1])
    head = struct.pack(">IIBBBBB", side, side, 8, pick(random, [0, 2, 6]), 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head)
    bmp = bytearray(encoded(0, "BMP"))
    struct.pack_into("<ii", bmp, 18, side, pick(random, [side, -side, 1]))
    gif = bytearray(encoded(0, "GIF"))
    struct.pack_into("<HH", gif, 6, 2**16 - 1, 2**16 - 1)
    programs = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n{} loop\n"
    cases = {
        "large PNG": png + _chunk(b"IDAT", zlib.compress(bytes(999))) + _chunk(b"IEND", b""),
        "text": png_bomb(6, 5, 0)[:-12] + _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**24))),
        "large BMP": bytes(bmp),
        "large GIF": bytes(gif),
        "large PPM": f"P5 {side} {side} 255\n".encode() + bytes(30),
        "deep PPM": b"P5 6 5 65535\n" + random.bytes(60),
        "PostScript": programs,
        "endless PPM": b"P5 " + b"#" * 2**20,
        "nothing": b"",
        "TIFF": b"II*\0" + struct.pack("<IH", 8, 2**16 - 1) + random.bytes(500),
    }
    return pick(random, list(cases.items()))


_SPLITS = [("train", "validation", "test"), ("Train", "VAL", "TEST"), ("TRAIN", "Valid", "Test")]

_LINES = ["", "0\n", "{0} 3\n", "{0} 0 0\n", "{0} 1\n{0} 2\n", "\0", "{0}\t0\n" * 9, "ü 0\n"]

_FORMATS = {"PNG": ".png", "BMP": ".bmp", "GIF": ".gif", "TIFF": ".tiff", "PPM": ".pgm"}

_KINDS = ["damaged"] * 8 + ["crafted"] * 4 + ["bomb", "bombs", "splits", "partition", "special"]


def make(random: np.random.Generator, folder: pathlib.Path) -> Input:
    """Makes a folder with a file that is hostile, or splits."""
    root = folder / name_of(random, "")
    root.mkdir()
    read = functools.partial(data.open_dataset, data.DataConfig(f"folder:{root}"))
    kind = pick(random, [*_KINDS, "damaged JPEG"])
    names = [f"{number:02d}.png" for number in range(COUNT)]
    if kind == "splits":
        splits = pick(random, _SPLITS)
        names = [f"{splits[(n >= 16) + (n >= 20)]}/{name}" for n, name in enumerate(names)]
        for split in splits:
            (root / split).mkdir()
    for number, name in enumerate(names):
        (root / name).write_bytes(encoded(number, "PNG"))
    if kind == "splits":
        return Input(f"splits {splits}", read, in_splits)
    if kind == "partition":
        if random.random() < 0.3:
            title = pick(random, SPECIAL[:-2])
            special_file(root / PARTITION, title)
        else:
            title = pick(random, _LINES)
            content = title.format(names[0]).encode() + pick(random, [b"", b"", random.bytes(99)])
            (root / PARTITION).write_bytes(content)
        return Input(f"partition {title!r}", read, None)
    number = int(random.integers(COUNT))
    shown = {name: n for n, name in enumerate(names) if n != number}
    right_or_refused = functools.partial(right, shown)
    victim = root / name_of(random, ".png")
    (root / names[number]).unlink()
    if kind == "damaged":
        form, suffix = pick(random, list(_FORMATS.items()))
        title, content = damaged(random, encoded(number, form))
        victim.with_suffix(suffix).write_bytes(content)
        return Input(f"{form}, {title}", read, right_or_refused)
    if kind == "damaged JPEG":
        title, content = damaged(random, encoded(number, "JPEG"))
        victim.with_suffix(".jpg").write_bytes(content)
        return Input(f"JPEG, {title}", read, right_or_refused)
    if kind == "special":
        title = pick(random, SPECIAL)
        special_file(victim, title)
        return Input(title, read, right_or_refused)
    if kind == "crafted":
        title, content = crafted(random)
        victim.write_bytes(content)
        return Input(title, read, right_or_refused)
    shapes = [(2, 2**17), (2**18, 2), (1500, 1500), *([(6000, 6000)] if kind == "bomb" else [])]
    shape = pick(random, shapes)
    channels = pick(random, [0, 2, 3, 6])
    content = png_bomb(*shape, channels)
    if kind == "bombs":
        for name in names:
            (root / name).unlink(missing_ok=True)
            (root / name).write_bytes(content)
        right_or_refused = _black
    victim.write_bytes(content)
    return Input(f"{kind} {shape}, kind {channels}", read, right_or_refused)


def _black(dataset: data.Dataset) -> bool:
    """Whether images are all of one value: black, or white where black is transparent."""
    return all(np.ptp(dataset.test[position]["image"]) == 0 for position in range(2))
