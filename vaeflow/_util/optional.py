"""Optional packages, and the errors that name them."""

from __future__ import annotations

import importlib
import importlib.util
import pathlib
from types import ModuleType


def missing_package(name: str, package: str, extra: str = "experiments") -> ValueError:
    """Returns the error that `name` needs `package`, and which extra of vaeflow installs it."""
    return ValueError(f"{name}: needs the package {package}; pip install 'vaeflow[{extra}]'")


def optional_import(module: str, user: str, package: str | None = None) -> ModuleType:
    """Imports a module of a package that the extra `experiments` brings.

    Args:
      module: The module.
      user: What needs it, for the error.
      package: The package as it is installed; None if its name is that of the module.

    Raises:
      ValueError: The package isn't installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing_package(user, package or module) from error


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
