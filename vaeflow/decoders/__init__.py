"""Decoders: Flax modules from latents to distributions of data, p(x | z).

A `Decoder` is a network, from latents to numbers for each pixel, and a likelihood head, from these
numbers to p(x | z).
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
