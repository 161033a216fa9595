"""Local and remote files, written atomically, and packages that may be missing.

A failed write leaves the old file as it was; the error of a missing package names its extra.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import pathlib
import uuid
from types import ModuleType
from typing import Any


def is_local(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path is on the local file system, unlike "gs://bucket/name"."""
    return "://" not in os.fspath(path)


def local_or_remote(path: str | os.PathLike[str]) -> Any:
    """Turns a path into one that can be read and written: of `pathlib`, or of `etils.epath`.

    Args:
      path: A local path, or one such as "gs://bucket/name" that `etils.epath` knows.

    Raises:
      ValueError: If the path isn't local and etils isn't installed.
    """
    text = os.fspath(path)
    if is_local(text):
        return pathlib.Path(text).expanduser()
    try:
        from etils import epath
    except ImportError:
        raise ValueError(
            f"path {text} isn't local, which needs a package: pip install 'etils[epath]'"
        ) from None
    return epath.Path(text)


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a temporary file next to the target, then renames it: a failure keeps the old file.

    Args:
      path: As for `local_or_remote`; its folder must exist.
      content: All of the file.

    Raises:
      OSError: If it can't be written.
      ValueError: As `local_or_remote`.
    """
    place = local_or_remote(path)
    local = isinstance(place, pathlib.Path)
    if local:
        place = place.resolve()  # a link stays a link
    partial = place.with_name(f"{place.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            if local:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(place)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    if local:
        _sync_folder(place.parent)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes a JSON file as `write_whole` does."""
    write_whole(path, (json.dumps(value, indent=2) + "\n").encode())


def _sync_folder(folder: pathlib.Path) -> None:
    """Puts a rename on the disk, on systems that open folders."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def missing_package(name: str, package: str, extra: str = "experiments") -> ValueError:
    """Returns the error that `name` needs `package`, and which extra of vaeflow installs it."""
    return ValueError(f"{name}: needs the package {package}; pip install 'vaeflow[{extra}]'")


def optional_import(
    module: str, user: str, package: str | None = None, extra: str = "experiments"
) -> ModuleType:
    """Imports a module of a package that an extra brings.

    Args:
      module: The module.
      user: What needs it, for the error.
      package: The package as it is installed; None if its name is that of the module.
      extra: The extra of vaeflow that brings it.

    Raises:
      ValueError: The package isn't installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing_package(user, package or module, extra) from error


def package_file(name: str, package: str, module: str, file: str) -> pathlib.Path:
    """Finds a file of a package without importing the package, which may be slow.

    Args:
      name: The source string, for error messages.
      package: The package as it is installed.
      module: The package as it is imported.
      file: Path within the module.

    Raises:
      ValueError: The package isn't installed, or has no such file.
    """
    spec = importlib.util.find_spec(module)
    if spec is None:
        raise missing_package(f"source={name!r}", package)
    path = pathlib.Path(spec.submodule_search_locations[0]) / file
    if not path.is_file():
        raise ValueError(
            f"source={name!r}: the installed {package} has no file {module}/{file};"
            f" pip install --force-reinstall {package}"
        )
    return path
