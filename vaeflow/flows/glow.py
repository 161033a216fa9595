"""Glow (Kingma & Dhariwal 2018): a multiscale flow with invertible 1x1 convolutions."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vaeflow.bijectors import (
    ActNorm,
    AffineCoupling,
    Chain,
    Conditioner,
    Invertible1x1Convolution,
    Invertible1x1ConvolutionPLU,
    SigmoidLogScale,
    Squeeze,
)
from vaeflow.bijectors.linear import plu_factors
from vaeflow.flows.multiscale import MultiscaleFlow
from vaeflow.nn import GlowNetwork
from vaeflow.nn.normalization import actnorm_parameters


class Glow(MultiscaleFlow, kw_only=True):
    """A multiscale flow of actnorm, invertible 1x1 convolutions and affine couplings.

    The whole flow is one bijector between flat standard normal noise and images: the learned
    Gaussian priors of the paper are affine couplings inside it. Both directions cost the same, up
    to one small matrix inversion a step from noise to data.

    From data to noise a step is an actnorm, which is initialised from data, an invertible 1x1
    convolution, initially a random rotation, and an affine coupling, initially the identity.

    Shapes: noise ``[*batch, height * width * channel]``, data ``[*batch, height, width, channel]``.

    Source: Kingma & Dhariwal 2018, "Glow: Generative Flow with Invertible 1x1 Convolutions".

    Attributes:
      event_shape: Height, width and channels of an image; height and width must be divisible by
        2^num_levels.
      num_levels: Number of levels L.
      num_steps: Number of steps K of each level.
      hidden_features: Number of hidden channels of the coupling networks.
      num_classes: Number of classes where the context is an integer label, otherwise None.
      context_ndims: For contexts of floats, 1 for vectors and 3 for feature maps of the height and
        width of the images.
      plu: Whether the 1x1 convolutions are parametrised by PLU factors.
      smallest_scale: Smallest factor of a coupling from data to noise. Sampling divides by it, so
        deep flows of few data want more than the default.
      lowest_log_scale: Smooth lower bound of the logarithm of these factors: three quarters of it
        and above are as without it. ``-math.inf`` lifts it.
      dtype: Type in which the networks compute; parameters, states and log-determinants are
        float32.
      scan: Whether to compile the steps of a level as one loop; otherwise one by one.
      backward: How to backpropagate: "plain", "remat" or "reversible", as in `StackedFlow`.
    """

    num_steps: int = 16
    plu: bool = False
    smallest_scale: float = 1e-3
    lowest_log_scale: float = -3.0

    def level(self, index, channels, context, data) -> Chain:
        """Builds a level: a squeeze, then K steps; arguments as in `MultiscaleFlow.level`."""
        del channels
        squeeze = Squeeze()
        squeezed = None if data is None else squeeze.forward(data)
        return Chain([self.stack(f"level_{index}")(context=context, data=squeezed), squeeze])

    @property
    def step_collections(self) -> tuple[str, ...]:
        """Names of the collections of a step's variables."""
        return ("params", "constants") if self.plu else ("params",)

    @nn.nowrap
    def init_step(self, key, data, context) -> dict[str, Any]:
        """Creates the variables of a step: actnorm from the data, a random rotation, a network."""
        rotation_key, network_key = jax.random.split(key)
        channels = data.shape[-1]
        shift, log_scale = actnorm_parameters(data)
        weight = jax.random.orthogonal(rotation_key, channels, dtype=jnp.float32)
        convolution, constants = {"weight": weight}, {}
        if self.plu:
            convolution = plu_factors(weight)
            constants = {name: convolution.pop(name) for name in ("permutation", "sign")}
        mixed = (data + shift) * jnp.exp(log_scale) @ weight
        network = self._network(channels).init(network_key, mixed[..., : channels // 2], context)
        variables = {
            "params": {
                "actnorm": {"shift": shift, "log_scale": log_scale},
                "convolution": convolution,
                "coupling": network["params"],
            }
        }
        return variables | ({"constants": constants} if constants else {})

    @nn.nowrap
    def step_context_features(self, params, given) -> int:
        """Number of features of the context of a step, 0 for none."""
        channels = params["actnorm"]["shift"].shape[0]
        features = self._network(channels).context_features(params["coupling"], channels // 2)
        # Maps of features are squeezed with the images.
        return features // 4 if self.context_ndims == 3 else features

    @nn.nowrap
    def step(self, variables, context) -> Chain:
        """Builds a step from its variables, from data to noise."""
        params = variables["params"]
        channels = params["actnorm"]["shift"].shape[-1]
        convolution = params["convolution"] | variables.get("constants", {})
        mixing = Invertible1x1ConvolutionPLU if self.plu else Invertible1x1Convolution
        network = Conditioner(
            self._network(channels), {"params": params["coupling"]}, context, 3, self.context_ndims
        )
        log_scale = SigmoidLogScale(self.smallest_scale, self.lowest_log_scale)
        return Chain(
            [
                AffineCoupling(network, channels // 2, 3, log_scale),
                mixing(**convolution, event_ndims=3),
                ActNorm(**params["actnorm"], event_ndims=3),
            ]
        )

    @nn.nowrap
    def _network(self, channels: int) -> GlowNetwork:
        """The coupling network: shifts and raw log scales of the half that it doesn't read."""
        features = 2 * (channels - channels // 2)
        return GlowNetwork(
            features, hidden_features=self.hidden_features, dtype=self.dtype, parent=None
        )
