"""A file that grows while it is written, also where files can't."""

from __future__ import annotations

from typing import Any

from etils import epath

from vaeflow.files import is_local, write_whole


class AppendOnlyFile:
    """A file that is appended to, its first content replacing what was there. A context manager.

    A file system takes each piece as it comes, so that a killed process leaves all of them. Object
    stores such as "gs://..." only take whole files: there `flush` writes all that was appended.

    Args:
      path: The file; its folder exists.
      content: What it begins with, written whole or not at all.

    Raises:
      OSError: If it can't be written; so do the methods.
    """

    def __init__(self, path: epath.Path, content: bytes = b"") -> None:
        self._path = path
        self._content = bytearray(content)
        write_whole(path, content)
        self._appended = path.open("ab") if is_local(path) else None

    def __enter__(self) -> AppendOnlyFile:
        return self

    def __exit__(self, *exception: Any) -> None:
        try:
            self.flush()
        finally:
            if self._appended is not None:
                self._appended.close()

    def append(self, piece: bytes) -> None:
        """Adds a piece at the end."""
        if self._appended is None:
            self._content += piece
        else:
            self._appended.write(piece)
            self._appended.flush()

    def flush(self) -> None:
        """Makes sure that all pieces are where the file is."""
        if self._appended is None:
            write_whole(self._path, bytes(self._content))
