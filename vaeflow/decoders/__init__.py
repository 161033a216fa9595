"""Decoders: Flax modules from latents to distributions of data, p(x | z).

A `Decoder` is a network, which makes features of latents, and a likelihood, which makes a
distribution of features.
"""

from vaeflow.decoders.bernoulli import Bernoulli
from vaeflow.decoders.decoder import Decoder
from vaeflow.decoders.gaussian import Gaussian
from vaeflow.decoders.networks import DenseDecoder

__all__ = ["Bernoulli", "Decoder", "DenseDecoder", "Gaussian"]
