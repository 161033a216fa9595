"""Variational auto-encoders and normalizing flows as pure functions in JAX.

Importing it loads everything but `vaeflow.training`, which needs more packages.
"""

from vaeflow import (
    bijectors,
    data,
    distributions,
    flows,
    losses,
    metrics,
    models,
    nn,
    plotting,
    testing,
)
from vaeflow.axis import LOCAL, Axis
from vaeflow.randomness import row_keys

__all__ = [
    "LOCAL",
    "Axis",
    "bijectors",
    "data",
    "distributions",
    "flows",
    "losses",
    "metrics",
    "models",
    "nn",
    "plotting",
    "row_keys",
    "testing",
]
