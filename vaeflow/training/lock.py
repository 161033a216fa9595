"""One process at a time in the directory of a run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from etils import epath

from vaeflow.files import is_local

LOCK = "lock"
"""Name of the file in a run's directory that its process holds locked."""


@contextlib.contextmanager
def run_lock(path: str) -> Iterator[None]:
    """Holds a run's directory for this process; the system lets go of it when the process ends.

    There is no such lock in stores that aren't file systems, such as "gs://...", where two
    processes on one directory are the caller's to avoid.

    Args:
      path: The directory, made if there is none.

    Raises:
      ValueError: If another process holds it; the message names that process.
      OSError: If the directory can't be written.
    """
    if not is_local(path):
        yield
        return
    import fcntl  # which only file systems of Unix have

    root = epath.Path(path).expanduser().resolve()
    try:
        root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OSError(f"workdir {path} can't be used: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode().strip() or "of unknown number"
            raise ValueError(
                f"workdir {path} is in use by process {holder}; wait for it, or give another "
                "--workdir"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)
