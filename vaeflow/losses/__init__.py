"""Losses: pure functions of a model, its variables, a batch and a key.

Each returns a scalar and an `Aux` of metrics and updated collections.
"""

from vaeflow.losses.base import Aux
from vaeflow.losses.likelihood import negative_log_likelihood

__all__ = ["Aux", "negative_log_likelihood"]
