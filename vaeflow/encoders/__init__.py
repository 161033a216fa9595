"""Encoders: Flax modules from data to distributions of latents, q(z | x).

An `Encoder` is a network, which makes features of images, and a posterior, which makes a
distribution of features.
"""

from vaeflow.encoders.encoder import Encoder
from vaeflow.encoders.flow import FlowPosterior
from vaeflow.encoders.gaussian import DiagonalGaussian, FullGaussian
from vaeflow.encoders.networks import DenseEncoder

__all__ = [
    "DenseEncoder",
    "DiagonalGaussian",
    "Encoder",
    "FlowPosterior",
    "FullGaussian",
]
