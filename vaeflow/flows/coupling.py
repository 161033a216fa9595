"""Coupling flows: RealNVP and NICE."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Bijector,
    Chain,
    Conditioner,
    ElementwiseAffine,
    Inverse,
    Permute,
    Reverse,
    Squeeze,
    bounded_log_scale,
)
from vaeflow.bijectors.elementwise import actnorm_parameters
from vaeflow.flows.base import StackedFlow, VectorFlow, initial_data, prepare_context
from vaeflow.flows.glow import check_image_shape
from vaeflow.flows.multiscale import multiscale
from vaeflow.nn import MLP, ResidualNetwork
from vaeflow.nn.normalization import data_dependent_param


class RealNVP(nn.Module):
    """Affine couplings with fixed permutations, for vectors or for images.

    Vectors pass `num_steps` couplings, with the order of the entries reversed after each. Images pass,
    at each level, `num_steps` couplings over the halves of a checkerboard and `num_steps` over the halves
    of the channels, then half of the channels leave; the couplings split a squeezed image instead
    of masking it, which is the same map at half the cost. Activation normalization takes the place
    of the paper's batch normalization. Both directions cost the same.

    Shapes: for vectors, noise and data are ``[*batch, channel]``; for images, noise is
    ``[*batch, height * width * channel]`` and data are ``[*batch, height, width, channel]``.

    Source: Dinh, Sohl-Dickstein & Bengio 2017, "Density estimation using Real NVP".

    Attributes:
      event_shape: Shape of the data: (channel,) or (height, width, channel).
      num_steps: Number of couplings, for images of each kind at each level; even numbers treat all
        entries alike.
      num_levels: Number of levels of an image; unused for vectors.
      hidden_features: Number of hidden units or channels of the coupling networks.
      num_blocks: Number of hidden layers (vectors) or residual blocks (images) of the networks.
      num_classes: Number of classes where the context is an integer label, otherwise None.
      context_ndims: For contexts of floats, 1 for vectors and 3 for feature maps of the height and
        width of the images.
      dtype: Type in which the networks compute; parameters, states and log-determinants are
        float32.
      scan: Whether to compile equal steps as one loop; otherwise one by one.
      remat: Whether to backpropagate by computing hidden layers again, as `Scan` does.
      reversible: Whether to backpropagate by inverting the steps.
    """

    event_shape: tuple[int, ...]
    num_steps: int = 4
    num_levels: int = 2
    hidden_features: int = 64
    num_blocks: int = 2
    num_classes: int | None = None
    context_ndims: int = 1
    dtype: Any = jnp.float32
    scan: bool = True
    remat: bool = False
    reversible: bool = False

    @property
    def noise_shape(self) -> tuple[int]:
        """Shape of the noise: one entry for each number in the data."""
        return (math.prod(self.event_shape),)

    @nn.compact
    def __call__(
        self,
        context: Array | None = None,
        *,
        data: Float[Array, "batch *event"] | None = None,
    ) -> Bijector:
        """Builds the bijector, forward from noise to data.

        Args:
          context: Labels ``[*batch]``, vectors ``[*batch, feature]`` or, for images, feature maps
            ``[*batch, height, width, feature]``, or None.
          data: In `init`, the batch from which every actnorm is initialised; otherwise ignored.
            Without it `init` uses standard normal noise.

        Raises:
          ValueError: If the event has neither rank 1 nor 3, an image's height or width isn't
            divisible by 2^levels, or the data or the context doesn't fit.
        """
        is_image = len(self.event_shape) != 1
        if is_image:
            check_image_shape("RealNVP", self.event_shape, self.num_levels)
        context = prepare_context(context, self.num_classes)
        batch = None if context is None else context.shape[: context.ndim - self.context_ndims]
        data = initial_data(self, data, self.event_shape, batch)
        if not is_image:
            return Inverse(self._stack("steps", self.event_shape[0])(context, data=data))
        encoder = multiscale(
            self.event_shape,
            self.num_levels,
            self._level,
            context,
            self.context_ndims,
            data,
            self.dtype,
        )
        return Inverse(encoder)

    def _level(self, level, shape, context, data):
        height, width, channels = shape[0] // 2, shape[1] // 2, 4 * shape[2]
        parts: list[Bijector] = [Squeeze(checkerboard=True)]
        for kind in ("checkerboard", "channels"):
            if kind == "channels":
                parts.append(Permute(_block_rows(shape[2]), event_ndims=3))
            stack = self._stack(f"level_{level}_{kind}", channels)
            parts.append(
                stack(context, data=None if data is None else Chain(parts[::-1]).forward(data))
            )
        return Chain(parts[::-1]), (height, width, channels)

    def _stack(self, name: str, channels: int) -> StackedFlow:
        step = _RealNVPStep(
            channels,
            len(self.event_shape),
            hidden_sizes=(self.hidden_features,) * self.num_blocks,
            context_ndims=self.context_ndims,
            dtype=self.dtype,
        )
        return StackedFlow(
            step,
            num_steps=self.num_steps,
            scan=self.scan,
            remat=self.remat,
            reversible=self.reversible,
            name=name,
        )


def _block_rows(channels: int) -> Sequence[int]:
    """Reorders the pixels of a checkerboard block by rows, each with all its channels."""
    groups = (0, 2, 3, 1)
    return tuple(group * channels + channel for group in groups for channel in range(channels))


@dataclasses.dataclass(frozen=True)
class _RealNVPStep:
    """Actnorm, then an affine coupling, then a reversal of the channels, from data to noise.

    Attributes:
      channels: Number of channels, or of entries of a vector.
      event_ndims: 1 for vectors, 3 for images.
      hidden_sizes: Units of each hidden layer (vectors), or equal channels of each residual block
        (images) of the coupling network.
      context_ndims: 1 where the context holds vectors, 3 where it holds feature maps.
      dtype: Type in which the network computes.
    """

    channels: int
    event_ndims: int
    hidden_sizes: Sequence[int]
    context_ndims: int = 1
    dtype: Any = jnp.float32

    collections = ("params",)
    outputs: ClassVar[int] = 2

    @property
    def split(self) -> int:
        """Number of channels that the coupling network reads."""
        return self.channels // 2

    @property
    def network(self) -> nn.Module:
        """The coupling network, which gives a shift and a raw log scale of each entry."""
        features = self.outputs * (self.channels - self.split)
        if self.event_ndims == 1:
            return MLP(features, tuple(self.hidden_sizes), dtype=self.dtype, parent=None)
        return ResidualNetwork(
            features,
            self.hidden_sizes[0],
            num_blocks=len(self.hidden_sizes),
            dtype=self.dtype,
            parent=None,
        )

    def conditioner(self, parameters: dict[str, Any], context: Array | None) -> Conditioner:
        """The coupling network with its parameters."""
        variables = {"params": parameters}
        return Conditioner(self.network, variables, context, self.event_ndims, self.context_ndims)

    def init(self, key: Array, data: Array, context: Array | None) -> dict[str, Any]:
        """Standardises the data and leaves the rest unchanged."""
        shift, log_scale = actnorm_parameters(data)
        normalised = (data + shift) * jnp.exp(log_scale)
        network = self.network.init(key, normalised[..., : self.split], context)
        return {
            "params": {
                "actnorm": {"shift": shift, "log_scale": log_scale},
                "coupling": network["params"],
            }
        }

    def __call__(self, variables: dict[str, Any], context: Array | None) -> Chain:
        """Builds the step from its variables."""
        parameters = variables["params"]
        network = self.conditioner(parameters["coupling"], context)
        return Chain(
            [
                Reverse(self.event_ndims),
                AffineCoupling(network, self.split, self.event_ndims, bounded_log_scale),
                ActNorm(**parameters["actnorm"], event_ndims=self.event_ndims),
            ]
        )


class NICE(VectorFlow):
    """Additive couplings, which keep volumes, and one scale of each entry next to the noise.

    Each step shifts half of the entries given the other half and reverses their order. The scales
    start at the standard deviations over the first batch, where the couplings shift by nothing.
    Both directions cost the same.

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

    def step(self) -> _NICEStep:
        """Builds the step, from data to noise."""
        return _NICEStep(
            self.event_shape[0],
            1,
            hidden_sizes=self.hidden_sizes,
            dtype=self.dtype,
        )

    @nn.compact
    def __call__(
        self,
        context: Array | None = None,
        *,
        data: Float[Array, "batch channel"] | None = None,
    ) -> Bijector:
        """Builds the bijector, forward from noise to data; arguments as for other flows."""
        couplings = super().__call__(context, data=data)
        if self.is_initializing() and data is None:
            log_scale = self.param("log_scale", nn.initializers.zeros, self.event_shape)
        else:
            log_scale = data_dependent_param(
                self, "log_scale", lambda: -actnorm_parameters(couplings.inverse(data))[1]
            )
        return Chain([couplings, ElementwiseAffine(jnp.zeros_like(log_scale), log_scale)])


@dataclasses.dataclass(frozen=True)
class _NICEStep(_RealNVPStep):
    """An additive coupling, then a reversal of the channels, from data to noise.

    Attributes as of `_RealNVPStep`.
    """

    outputs: ClassVar[int] = 1

    def init(self, key: Array, data: Array, context: Array | None) -> dict[str, Any]:
        """Leaves the data unchanged, but for their order."""
        network = self.network.init(key, data[..., : self.split], context)
        return {"params": {"coupling": network["params"]}}

    def __call__(self, variables: dict[str, Any], context: Array | None) -> Chain:
        """Builds the step from its variables."""
        network = self.conditioner(variables["params"]["coupling"], context)
        return Chain(
            [
                Reverse(self.event_ndims),
                AdditiveCoupling(network, self.split, self.event_ndims),
            ]
        )
