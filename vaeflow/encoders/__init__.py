"""Encoders: Flax modules from data to distributions of latents, q(z | x).

An `Encoder` is a network, which makes features of images, and a posterior, which makes a
distribution of features. A `MapEncoder` makes maps of features, for `vaeflow.quantizers`.
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
