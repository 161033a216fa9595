"""The public API: packages list their names, and every public name has a docstring of its own."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import vaeflow


def public_modules() -> list[str]:
    """vaeflow, its packages and public modules, and the modules that these list."""
    names = [f"vaeflow.{module.name}" for module in pkgutil.iter_modules(vaeflow.__path__)]
    public = ["vaeflow", *(name for name in names if not name.rpartition(".")[2].startswith("_"))]
    for name in public[1:]:
        module = importlib.import_module(name)
        values = (getattr(module, entry) for entry in module.__all__)
        public += [value.__name__ for value in values if inspect.ismodule(value)]
    return public


@pytest.mark.parametrize("name", public_modules())
def test_public_names_are_listed_and_documented(name):
    module = importlib.import_module(name)
    names = module.__all__
    offenders = [entry for entry in names if not hasattr(module, entry)]
    assert not offenders, f"{name}.__all__ lists missing names: {offenders}"
    assert len(set(names)) == len(names) > 0
    assert inspect.getdoc(module)
    if hasattr(module, "__path__"):  # a package imports nothing public by accident
        unlisted = sorted(set(public_values(module)) - set(names))
        assert not unlisted, f"{name}.__all__ lacks {unlisted}"
    offenders = [text for entry in names for text in undocumented(name, entry)]
    assert not offenders, f"{name} has undocumented names: {offenders}"


def public_values(module) -> list[str]:
    """Names without an underscore of vaeflow's classes and functions in a package."""
    return [
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", "").startswith("vaeflow") and not name.startswith("_")
    ]


def undocumented(module: str, name: str) -> list[str]:
    """The name, or those of its methods, that have no docstring of their own."""
    value = getattr(importlib.import_module(module), name)
    if inspect.ismodule(value):
        return [] if inspect.getdoc(value) else [name]
    if not callable(value):
        # The text below a constant is for the reference; its class has a docstring of its own.
        return [] if name.isupper() else [name]
    # A class's own docstring, not that of its base.
    text = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    text = inspect.cleandoc(text or "")
    summary = text.partition("\n\n")[0]
    # Dataclasses and named tuples without a docstring generate one from their signature.
    offenders = [] if summary.endswith((".", ":")) and not text.startswith(f"{name}(") else [name]
    if inspect.isclass(value):
        offenders += [
            f"{name}.{method}"
            for method, function in vars(value).items()
            if not method.startswith("_")
            and inspect.isfunction(function)
            and getattr(function, "__module__", "").startswith("vaeflow")
            # A method that overrides a documented one may leave it at that.
            and not inspect.getdoc(getattr(value, method))
        ]
    return offenders


def test_every_package_is_an_attribute_imported_on_first_use():
    program = """
import sys
import vaeflow
assert not {name for name in sys.modules if name.startswith("vaeflow.")}
assert "jax" not in sys.modules
for name in vaeflow.__all__:
    getattr(vaeflow, name)
assert set(vaeflow.__all__) <= set(dir(vaeflow))
"""
    subprocess.run([sys.executable, "-c", program], check=True)
