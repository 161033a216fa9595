"""The one error for a package that isn't installed."""

from __future__ import annotations


def missing_package(what: str, package: str, extra: str = "experiments") -> ValueError:
    """Says that `what` needs `package`, and that an extra of vaeflow brings it."""
    return ValueError(f"{what}: needs the package {package}; pip install 'vaeflow[{extra}]'")
