"""Variational auto-encoders and normalizing flows as pure functions in JAX."""

from vaeflow import bijectors, distributions, flows, losses, models, nn
from vaeflow.axis import LOCAL, Axis
from vaeflow.randomness import row_keys

__all__ = [
    "LOCAL",
    "Axis",
    "bijectors",
    "distributions",
    "flows",
    "losses",
    "models",
    "nn",
    "row_keys",
]
