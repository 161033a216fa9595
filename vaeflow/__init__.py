"""Variational auto-encoders and normalizing flows as pure functions in JAX.

Importing it loads everything but `vaeflow.training`, which needs more packages.
"""

from vaeflow import (
    bases,
    bijectors,
    data,
    decoders,
    distributions,
    encoders,
    flows,
    losses,
    metrics,
    models,
    nn,
    plotting,
    quantizers,
    sharing,
    testing,
)
from vaeflow.axis import LOCAL, Axis
from vaeflow.interpolation import linear_path, spherical_path
from vaeflow.randomness import row_keys
from vaeflow.sharing import load, save

__all__ = [
    "LOCAL",
    "Axis",
    "bases",
    "bijectors",
    "data",
    "decoders",
    "distributions",
    "encoders",
    "flows",
    "linear_path",
    "load",
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
]
