"""Decoders: Flax modules from latents to distributions of data, p(x | z).

A `Decoder` is a network, which makes features of latents, and a likelihood, which makes a
distribution of features.
"""

from vaeflow.decoders.adaptive import AdaINDecoder
from vaeflow.decoders.bernoulli import BernoulliLikelihood
from vaeflow.decoders.continuous_bernoulli import ContinuousBernoulliLikelihood
from vaeflow.decoders.convolutional import ConvolutionalDecoder, GatedDecoder, ResidualDecoder
from vaeflow.decoders.decoder import Decoder
from vaeflow.decoders.dense import DenseDecoder
from vaeflow.decoders.gaussian import GaussianLikelihood
from vaeflow.decoders.levels import CategoricalLikelihood, DiscretizedLogisticMixtureLikelihood
from vaeflow.decoders.maps import MapDecoder

__all__ = [
    "AdaINDecoder",
    "BernoulliLikelihood",
    "CategoricalLikelihood",
    "ContinuousBernoulliLikelihood",
    "ConvolutionalDecoder",
    "Decoder",
    "DenseDecoder",
    "DiscretizedLogisticMixtureLikelihood",
    "GatedDecoder",
    "GaussianLikelihood",
    "MapDecoder",
    "ResidualDecoder",
]
