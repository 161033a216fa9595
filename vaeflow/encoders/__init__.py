"""Encoders: Flax modules from data to distributions of latents, q(z | x).

An `Encoder` is a network, which makes features of images, and a posterior, which makes a
distribution of features. A `MapEncoder` makes maps of features, for `vaeflow.quantizers`.
"""

from vaeflow.encoders.content import ContentEncoder
from vaeflow.encoders.convolutional import ConvolutionalEncoder, GatedEncoder, ResidualEncoder
from vaeflow.encoders.dense import DenseEncoder
from vaeflow.encoders.encoder import Encoder
from vaeflow.encoders.flow import FlowPosterior
from vaeflow.encoders.gaussian import DiagonalGaussianPosterior, FullGaussianPosterior
from vaeflow.encoders.grouped import ConcretePosterior, GroupedPosterior
from vaeflow.encoders.maps import MapEncoder
from vaeflow.encoders.point import PointMassPosterior
from vaeflow.encoders.style import StyleEncoder

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
