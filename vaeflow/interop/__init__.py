"""Sockets for other libraries: one module a neighbour, imported when it is first used.

`numpyro`, `blackjax`, `arviz` and `sklearn` need the packages of the extra ``vaeflow[interop]``,
and raise a `ValueError` that names it where one is missing; `tfp` needs nothing more than vaeflow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaeflow.interop import arviz, blackjax, numpyro, sklearn, tfp

__all__ = ["arviz", "blackjax", "numpyro", "sklearn", "tfp"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
