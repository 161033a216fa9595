"""Encoders: Flax modules from data to distributions of latents, q(z | x).

An `Encoder` is a network, from images to features, and a posterior head, from features to q(z | x).
A `MapEncoder` computes maps of features, for `vaeflow.quantizers`.
"""

from vaeflow.encoders.munit import ContentEncoder, StyleEncoder
from vaeflow.encoders.networks import (
    ConvolutionalEncoder,
    DenseEncoder,
    Encoder,
    GatedEncoder,
    MapEncoder,
    ResidualEncoder,
)
from vaeflow.encoders.posteriors import (
    ConcretePosterior,
    DiagonalGaussianPosterior,
    FlowPosterior,
    FullGaussianPosterior,
    GroupedPosterior,
    PointMassPosterior,
)

__all__ = [
    "ConcretePosterior",
    "ContentEncoder",
    "ConvolutionalEncoder",
    "DenseEncoder",
    "DiagonalGaussianPosterior",
    "Encoder",
    "FlowPosterior",
    "FullGaussianPosterior",
    "GatedEncoder",
    "GroupedPosterior",
    "MapEncoder",
    "PointMassPosterior",
    "ResidualEncoder",
    "StyleEncoder",
]
