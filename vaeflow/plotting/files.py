"""Saving figures."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from etils import epath

from vaeflow.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(path: str | os.PathLike[str], figure: Figure) -> None:
    """Writes a figure at its own resolution; a reader never sees half of it.

    Args:
      path: Where to; the suffix gives the format (.png, .pdf, .svg). A path of any kind that
        `etils.epath` knows, such as ``gs://``. Missing folders are made.
      figure: The figure.

    Raises:
      ValueError: If matplotlib can't write the format of the suffix.
    """
    path = epath.Path(path)
    suffix = path.suffix.lstrip(".")
    supported = sorted(figure.canvas.get_supported_filetypes())
    if suffix not in supported:
        raise ValueError(f"path must end in one of {supported}, got {os.fspath(path)!r}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix, dpi=figure.dpi)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())
