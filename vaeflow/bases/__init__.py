"""Learned distributions that flows start from: Flax modules that own the parameters of a base.

Each answers ``base(context=None, *, batch_shape=(), temperature=1.0)`` with a distribution over
events of `event_shape`. `batch_shape` are the batch axes of that distribution; where the context
decides them, they are the context's. The temperature scales deviations from the mean, of each
component where there are several.
"""

from vaeflow.bases.box import BoxBase
from vaeflow.bases.gaussian import (
    CorrelatedGaussianBase,
    DiagonalGaussianBase,
    LabelledGaussianBase,
)
from vaeflow.bases.mixture import GaussianMixtureBase
from vaeflow.bases.resampled import ResampledBase

__all__ = [
    "BoxBase",
    "CorrelatedGaussianBase",
    "DiagonalGaussianBase",
    "GaussianMixtureBase",
    "LabelledGaussianBase",
    "ResampledBase",
]
