"""Figures and animations as files, written atomically."""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from vaeflow._util.files import local_or_remote, missing_package, write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Every figure needs it; it is imported only when one is plotted.
if importlib.util.find_spec("matplotlib") is None:
    raise missing_package("vaeflow.plotting", "matplotlib")


def save_figure(path: str | os.PathLike[str], figure: Figure) -> None:
    """Writes a figure at its own resolution, atomically.

    Args:
      path: The file; its suffix gives the format (.png, .pdf, .svg). A path of any kind that
        `etils.epath` knows, such as ``gs://``. Missing folders are made.
      figure: The figure.

    Raises:
      ValueError: If matplotlib can't write the format of the suffix.
    """
    path = local_or_remote(path)
    suffix = path.suffix.lstrip(".")
    supported = sorted(figure.canvas.get_supported_filetypes())
    if suffix not in supported:
        raise ValueError(f"path must end in one of {supported}, got {os.fspath(path)!r}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix, dpi=figure.dpi)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())


_PALETTE_SIZE = 128


def save_animation(
    path: str | os.PathLike[str],
    frames: UInt8[np.ndarray, "frame height width rgb"],
    seconds: float | Sequence[float] = 0.05,
) -> None:
    """Writes frames as a GIF that loops endlessly, atomically.

    All frames share 128 colours, which keeps the file small.

    Args:
      path: The file, ending in .gif; of any kind that `etils.epath` knows. Missing folders are
        made.
      frames: The frames.
      seconds: How long to show each frame, or one number for all; whole hundredths count.

    Raises:
      ValueError: If the suffix is another, or frames or seconds don't fit.
    """
    from PIL import Image

    path = local_or_remote(path)
    if path.suffix != ".gif":
        raise ValueError(f"path must end in .gif, got {os.fspath(path)!r}")
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise ValueError(
            f"frames must be uint8 [frame, height, width, 3], got {frames.dtype} {frames.shape}"
        )
    if np.shape(seconds) not in ((), (len(frames),)):
        raise ValueError(
            f"seconds must be one number or {len(frames)}, one a frame, got {np.shape(seconds)}"
        )
    chosen = frames[:: max(len(frames) // 8, 1)]
    palette = Image.fromarray(chosen.reshape(-1, *frames.shape[2:])).quantize(
        _PALETTE_SIZE, method=Image.Quantize.MAXCOVERAGE
    )
    images = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in frames
    ]
    duration = [round(1000 * length) for length in np.broadcast_to(seconds, len(frames))]
    buffer = io.BytesIO()
    images[0].save(
        buffer, "GIF", save_all=True, append_images=images[1:], duration=duration, loop=0
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())
