"""NumPy archives, of which nothing is ever unpickled."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np

from vaeflow.data.packages import missing_package


@contextlib.contextmanager
def open_archive(name: str, path: str) -> Iterator[np.lib.npyio.NpzFile]:
    """Opens the archive at `path`, of any kind that `etils.epath` knows.

    Args:
      name: The source string, for error messages.
      path: The ``.npz`` file.

    Raises:
      ValueError: The file is missing or isn't an archive.
    """
    try:
        from etils import epath
    except ImportError as error:
        raise missing_package(f"source={name!r}", "etils") from error
    file = epath.Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"source={name!r}: there is no such file")
    with file.open("rb") as stream:
        if not zipfile.is_zipfile(stream):
            raise ValueError(f"source={name!r}: not an .npz archive")
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as archive:
            yield archive


def read_array(archive: np.lib.npyio.NpzFile, key: str, name: str) -> np.ndarray:
    """Reads one array.

    Raises:
      ValueError: It holds Python objects or is damaged.
    """
    try:
        return archive[key]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise ValueError(
                f"source={name!r}: {key} holds Python objects, which are never unpickled; allowed"
                " are plain numeric arrays"
            ) from error
        raise ValueError(f"source={name!r}: {key} can't be read: {error}") from error
