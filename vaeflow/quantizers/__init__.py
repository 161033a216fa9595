"""Quantizers: Flax modules that replace features by the nearest of finitely many codes.

Each returns a `Quantized`: values with a gradient, indices, the losses of every example, and the
counts of the codes.
"""

from vaeflow.quantizers.base import Quantized, Quantizer, rotation_trick, straight_through
from vaeflow.quantizers.grouped import GroupedQuantizer
from vaeflow.quantizers.gumbel import GumbelQuantizer
from vaeflow.quantizers.moving_average import CodeSums, MovingAverage
from vaeflow.quantizers.residual import ResidualQuantizer
from vaeflow.quantizers.scalar import FiniteScalarQuantizer, LookupFreeQuantizer
from vaeflow.quantizers.vector import VectorQuantizer

__all__ = [
    "CodeSums",
    "FiniteScalarQuantizer",
    "GroupedQuantizer",
    "GumbelQuantizer",
    "LookupFreeQuantizer",
    "MovingAverage",
    "Quantized",
    "Quantizer",
    "ResidualQuantizer",
    "VectorQuantizer",
    "rotation_trick",
    "straight_through",
]
