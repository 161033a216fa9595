"""scikit-learn, where it is needed."""

from __future__ import annotations

import importlib
from types import ModuleType

from vaeflow.data.packages import missing_package


def import_scikit_learn(module: str, what: str) -> ModuleType:
    """Imports a module of scikit-learn.

    Args:
      module: Its name within the package.
      what: What needs it, for the error.

    Raises:
      ValueError: The package isn't installed.
    """
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError:
        raise missing_package(what, "scikit-learn") from None
