"""Decoders: Flax modules from latents to distributions of data, p(x | z).

A `Decoder` is a network, which makes features of latents, and a likelihood, which makes a
distribution of features.
"""

from vaeflow.decoders.adaptive import AdaINDecoder
from vaeflow.decoders.bernoulli import Bernoulli
from vaeflow.decoders.continuous_bernoulli import ContinuousBernoulli
from vaeflow.decoders.convolutional import ConvolutionalDecoder, GatedDecoder, ResidualDecoder
from vaeflow.decoders.decoder import Decoder
from vaeflow.decoders.dense import DenseDecoder
from vaeflow.decoders.gaussian import Gaussian
from vaeflow.decoders.levels import DiscretizedLogisticMixture, LevelCategorical
from vaeflow.decoders.maps import MapDecoder

__all__ = [
    "AdaINDecoder",
    "Bernoulli",
    "ContinuousBernoulli",
    "ConvolutionalDecoder",
    "Decoder",
    "DenseDecoder",
    "DiscretizedLogisticMixture",
    "GatedDecoder",
    "Gaussian",
    "LevelCategorical",
    "MapDecoder",
    "ResidualDecoder",
]
