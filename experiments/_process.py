"""The process of a command: its output, whose failure fails no run, and its libraries' chatter."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from typing import TextIO


class _Unfailing(io.FileIO):
    """A file that takes all that is written: what a closed pipe or a full disk can't is lost."""

    def write(self, piece: bytes) -> int:
        """Writes a piece, or drops it."""
        try:
            return super().write(piece)
        except OSError:
            return len(piece)


def make_output_unfailing() -> None:
    """Replaces stdout and stderr by streams that never fail.

    Results are in the run's directory: who reads them elsewhere may leave. Characters that the
    encoding of the stream lacks are escaped.
    """
    sys.stdout, sys.stderr = (_unfailing(stream) for stream in (sys.stdout, sys.stderr))


def _unfailing(stream: TextIO | None) -> TextIO:
    if stream is None:  # closed by the caller
        return open(os.devnull, "w")
    with contextlib.suppress(OSError, ValueError):
        stream.flush()
    # A copy: number 2 is where C++ writes, which `training.join_hosts` reads.
    raw = _Unfailing(os.dup(stream.fileno()), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering or stream is sys.stderr,
    )


def quieten() -> None:
    """Silences the libraries' logs and warnings; their errors and our warnings still show."""
    for name in ("jax", "orbax", "grain", "tensorboardX", "wandb", "mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("absl", "asyncio"):  # they print each thread's share of an error that is raised
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"(?!vaeflow|experiments)")
