"""Coupling flows: RealNVP, for vectors and for images, and NICE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from vaeflow.bijectors import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Bijector,
    BoundedLogScale,
    Chain,
    Conditioner,
    ElementwiseAffine,
    Inverse,
    Permute,
    Reverse,
    Squeeze,
)
from vaeflow.flows.base import VectorFlow
from vaeflow.flows.multiscale import MultiscaleFlow
from vaeflow.nn import MLP, ResidualNetwork
from vaeflow.nn.normalization import actnorm_parameters, data_dependent_param


class RealNVP(MultiscaleFlow, kw_only=True):
    """Affine couplings with fixed permutations; the shape of an event decides between two kinds.

    From data to noise a step is an actnorm, which takes the place of the paper's batch
    normalization, an affine coupling, initially the identity, and a reversal of the channels. Both
    directions cost the same.

    Vectors ``(channel,)``: `num_steps` steps whose networks are `vaeflow.nn.MLP`; `num_levels` has
    no effect. Noise and data are ``[*batch, channel]``.

    Images ``(height, width, channel)``: a multiscale flow whose networks are
    `vaeflow.nn.ResidualNetwork`. A level has `num_steps` steps over the halves of a checkerboard,
    then `num_steps` over the halves of the channels, then half of the channels leave. Checkerboard
    couplings split a squeezed image instead of masking it: the same map at half the cost. Noise is
    ``[*batch, height * width * channel]`` and data are ``[*batch, height, width, channel]``.

    Source: Dinh, Sohl-Dickstein & Bengio 2017, "Density estimation using Real NVP".

    Attributes:
      event_shape: Shape of the data: (channel,) or (height, width, channel).
      num_steps: Number of couplings; for images, of each of the two kinds at each level. With even
        numbers every dimension is transformed equally often.
      num_levels: Number of levels of an image; unused for vectors.
      hidden_features: Number of hidden units (vectors) or channels (images) of the networks.
      num_blocks: Number of hidden layers (vectors) or residual blocks (images) of the networks.
      log_scale: Static function from a network's raw outputs to the log scales of a step from data
        to noise. By default a step expands by at most exp(6) = 403 and contracts to exp(-2) = 0.14
        of a distance at least; ``BoundedLogScale(-math.inf, math.inf)`` lifts these bounds.
      num_classes: Number of classes where the context is an integer label, otherwise None.
      context_ndims: For contexts of floats, 1 for vectors; for images also 3, for feature maps of
        their height and width.
      dtype: Type in which the networks compute; parameters, states and log-determinants are
        float32.
      scan: Whether to compile equal steps as one loop; otherwise one by one.
      backward: How to backpropagate: "plain", "remat" or "reversible", as in `StackedFlow`.
    """

    num_levels: int = 2
    hidden_features: int = 64
    num_blocks: int = 2
    log_scale: Callable[[Array], Array] = BoundedLogScale()

    def check_fields(self) -> None:
        """Checks the shape of an image."""
        if len(self.event_shape) != 1:
            super().check_fields()

    def build(self, context, data, batch_shape) -> Bijector:
        """Builds the bijector inside the compact call; arguments as in `Flow.build`."""
        if len(self.event_shape) == 1:
            return Inverse(self.stack("steps")(context=context, data=data))
        return super().build(context, data, batch_shape)

    def level(self, index, channels, context, data) -> Chain:
        """Builds a level of an image; arguments as in `MultiscaleFlow.level`."""
        parts: list[Bijector] = [Squeeze(checkerboard=True)]
        for kind in ("checkerboard", "channels"):
            if kind == "channels":
                parts.append(Permute(_checkerboard_to_rows(channels), event_ndims=3))
            transformed = None if data is None else Chain(parts[::-1]).forward(data)
            parts.append(self.stack(f"level_{index}_{kind}")(context=context, data=transformed))
        return Chain(parts[::-1])

    @nn.nowrap
    def init_step(self, key, data, context) -> dict[str, Any]:
        """Creates the variables of a step: an actnorm from the data, and a network."""
        channels = data.shape[-1]
        shift, log_scale = actnorm_parameters(data)
        normalized = (data + shift) * jnp.exp(log_scale)
        network = self._network(channels).init(key, normalized[..., : channels // 2], context)
        return {
            "params": {
                "actnorm": {"shift": shift, "log_scale": log_scale},
                "coupling": network["params"],
            }
        }

    @nn.nowrap
    def step_context_features(self, params, given) -> int:
        """Number of features of the context of a step, 0 for none."""
        channels = params["actnorm"]["shift"].shape[0]
        network, inputs = self._network(channels), channels // 2
        if len(self.event_shape) == 1:
            return network.context_features(params["coupling"], inputs, given)
        features = network.context_features(params["coupling"], inputs)
        # Maps of features are squeezed with the images.
        return features // 4 if self.context_ndims == 3 else features

    @nn.nowrap
    def step(self, variables, context) -> Chain:
        """Builds a step from its variables, from data to noise."""
        params = variables["params"]
        event_ndims = len(self.event_shape)
        channels = params["actnorm"]["shift"].shape[-1]
        network = Conditioner(
            self._network(channels),
            {"params": params["coupling"]},
            context,
            event_ndims,
            self.context_ndims,
        )
        return Chain(
            [
                Reverse(event_ndims),
                AffineCoupling(network, channels // 2, event_ndims, self.log_scale),
                ActNorm(**params["actnorm"], event_ndims=event_ndims),
            ]
        )

    @nn.nowrap
    def _network(self, channels: int) -> MLP | ResidualNetwork:
        """The coupling network: shifts and raw log scales of the half that it doesn't read."""
        features = 2 * (channels - channels // 2)
        if len(self.event_shape) == 1:
            hidden_sizes = (self.hidden_features,) * self.num_blocks
            return MLP(features, hidden_sizes, dtype=self.dtype, parent=None)
        return ResidualNetwork(
            features,
            hidden_features=self.hidden_features,
            num_blocks=self.num_blocks,
            dtype=self.dtype,
            parent=None,
        )


def _checkerboard_to_rows(channels: int) -> tuple[int, ...]:
    """The permutation from the checkerboard order of a 2x2 block to the row-major one."""
    groups = (0, 2, 3, 1)
    return tuple(group * channels + channel for group in groups for channel in range(channels))


class NICE(VectorFlow, kw_only=True):
    """Additive couplings, which preserve volume, and one scale of each dimension of the noise.

    From data to noise a step shifts half of the dimensions given the other half, initially by
    nothing, and reverses their order. The scales start at the standard deviations over the first
    batch. Both directions cost the same.

    Shapes: noise and data are ``[*batch, channel]``.

    Source: Dinh, Krueger & Bengio 2014, "NICE: Non-linear independent components estimation".

    Attributes:
      hidden_sizes: Units of each hidden layer of the coupling networks.
      dtype: Type in which the networks compute; parameters, states and log-determinants are
        float32.
    """

    hidden_sizes: Sequence[int] = (64, 64)
    dtype: Any = jnp.float32

    to_noise = True

    @nn.compact
    def bijector(self, context, data) -> Bijector:
        """Builds the bijector; arguments as in a call."""
        couplings = super().bijector(context, data)
        if self.is_initializing() and data is None:
            log_scale = self.param(
                "log_scale", nn.initializers.zeros, self.event_shape, jnp.float32
            )
        else:
            log_scale = data_dependent_param(
                self,
                "log_scale",
                lambda: -actnorm_parameters(couplings.inverse(data))[1].astype(jnp.float32),
            )
        return Chain([couplings, ElementwiseAffine(jnp.zeros_like(log_scale), log_scale)])

    @nn.nowrap
    def init_step(self, key, data, context) -> dict[str, Any]:
        """Creates the variables of a step."""
        network = self._network.init(key, data[..., : self.event_shape[0] // 2], context)
        return {"params": {"coupling": network["params"]}}

    @nn.nowrap
    def step_context_features(self, params, given) -> int:
        """Number of features of the context of a step, 0 for none."""
        inputs = self.event_shape[0] // 2
        return self._network.context_features(params["coupling"], inputs, given)

    @nn.nowrap
    def step(self, variables, context) -> Chain:
        """Builds a step from its variables, from data to noise."""
        params = variables["params"]
        network = Conditioner(self._network, {"params": params["coupling"]}, context)
        return Chain([Reverse(), AdditiveCoupling(network, self.event_shape[0] // 2)])

    @property
    def _network(self) -> MLP:
        """The coupling network: shifts of the half that it doesn't read."""
        features = self.event_shape[0] - self.event_shape[0] // 2
        return MLP(features, tuple(self.hidden_sizes), dtype=self.dtype, parent=None)
