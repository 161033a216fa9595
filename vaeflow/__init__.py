"""Variational auto-encoders and normalizing flows as pure functions in JAX.

Every package is an attribute, imported when it is first used: ``import vaeflow as vf``, then
``vf.flows``, ``vf.training`` and so on.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaeflow import (
        bases,
        bijectors,
        data,
        decoders,
        distributions,
        encoders,
        estimators,
        fitting,
        flows,
        interop,
        losses,
        metrics,
        models,
        nn,
        plotting,
        quantizers,
        sharing,
        testing,
        training,
        typing,
    )
    from vaeflow._util.arrays import LOCAL, Axis, row_keys
    from vaeflow.fitting import fit, fit_energy, load_fitted
    from vaeflow.interpolation import linear_path, spherical_path
    from vaeflow.sharing.save import load, save

# The modules of names that aren't packages or modules themselves.
_MODULES = {
    "LOCAL": "_util.arrays",
    "Axis": "_util.arrays",
    "fit": "fitting",
    "fit_energy": "fitting",
    "linear_path": "interpolation",
    "load": "sharing.save",
    "load_fitted": "fitting",
    "row_keys": "_util.arrays",
    "save": "sharing.save",
    "spherical_path": "interpolation",
}

__all__ = [
    "LOCAL",
    "Axis",
    "bases",
    "bijectors",
    "data",
    "decoders",
    "distributions",
    "encoders",
    "estimators",
    "fit",
    "fit_energy",
    "fitting",
    "flows",
    "interop",
    "linear_path",
    "load",
    "load_fitted",
    "losses",
    "metrics",
    "models",
    "nn",
    "plotting",
    "quantizers",
    "row_keys",
    "save",
    "sharing",
    "spherical_path",
    "testing",
    "training",
    "typing",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES.get(name, name)}")
    value = getattr(module, name) if name in _MODULES else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
