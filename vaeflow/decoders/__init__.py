"""Decoders: Flax modules from latents to distributions of data, p(x | z).

A `Decoder` is a network, which makes features of latents, and a likelihood, which makes a
distribution of features.
"""

from vaeflow.decoders.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    ContinuousBernoulliLikelihood,
    DiscretizedLogisticMixtureLikelihood,
    GaussianLikelihood,
)
from vaeflow.decoders.munit import AdaINDecoder
from vaeflow.decoders.networks import (
    ConvolutionalDecoder,
    Decoder,
    DenseDecoder,
    GatedDecoder,
    MapDecoder,
    ResidualDecoder,
)

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
