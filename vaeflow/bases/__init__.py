"""Learned distributions that flows start from: Flax modules that own the parameters of a base.

Each answers ``base(context=None, *, batch_shape=(), temperature=1.0)`` with a distribution over
events of `event_shape`. `batch_shape` are the batch axes of that distribution; where the context
decides them, they are the context's. The temperature scales deviations from the mean, of each
component where there are several.
"""

from vaeflow.bases.box import Box
from vaeflow.bases.gaussian import CorrelatedGaussian, DiagonalGaussian, LabelledGaussian
from vaeflow.bases.mixture import GaussianMixture
from vaeflow.bases.resampled import Resampled

__all__ = [
    "Box",
    "CorrelatedGaussian",
    "DiagonalGaussian",
    "GaussianMixture",
    "LabelledGaussian",
    "Resampled",
]
