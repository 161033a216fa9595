"""Every public name says what it is."""

import importlib
import inspect
import pkgutil

import pytest

import vaeflow

PACKAGES = [
    "vaeflow",
    *(
        f"vaeflow.{module.name}"
        for module in pkgutil.iter_modules(vaeflow.__path__)
        if module.ispkg
    ),
]


def public_names() -> list[tuple[str, str]]:
    return [
        (package, name)
        for package in PACKAGES
        for name in getattr(importlib.import_module(package), "__all__", ())
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_list_what_is_public(package):
    module = importlib.import_module(package)
    names = module.__all__
    assert len(set(names)) == len(names) > 0
    assert all(hasattr(module, name) for name in names)
    assert inspect.getdoc(module)
    # What a package imports for others to use is in its list: nothing public by accident.
    imported = {
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", "").startswith("vaeflow") and not name.startswith("_")
    }
    assert imported <= set(names)


@pytest.mark.parametrize(("package", "name"), public_names())
def test_public_names_have_a_summary(package, name):
    value = getattr(importlib.import_module(package), name)
    if not (callable(value) or inspect.ismodule(value)):
        # The text below a constant is for the reference; its class has one of its own.
        assert name.isupper()
        return
    # A class's own docstring: not that of its base.
    text = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    text = inspect.cleandoc(text or "")
    summary = text.partition("\n\n")[0]
    assert summary.endswith((".", ":"))
    # What dataclasses and named tuples make up.
    assert not text.startswith(f"{name}(")


@pytest.mark.parametrize(("package", "name"), public_names())
def test_public_methods_have_a_summary(package, name):
    value = getattr(importlib.import_module(package), name)
    if not inspect.isclass(value):
        return
    for method, function in vars(value).items():
        if method.startswith("_") or not inspect.isfunction(function):
            continue
        if getattr(function, "__module__", "").startswith("vaeflow"):
            # A method that overrides a documented one may leave it at that.
            assert inspect.getdoc(getattr(value, method)), method
