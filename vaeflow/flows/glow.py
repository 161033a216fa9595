"""Glow."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors import (
    ActNorm,
    AffineCoupling,
    Bijector,
    Chain,
    Conditioner,
    Inverse,
    Invertible1x1Convolution,
    Invertible1x1ConvolutionPLU,
    SigmoidLogScale,
    Squeeze,
)
from vaeflow.bijectors.elementwise import actnorm_parameters
from vaeflow.bijectors.linear import plu_factors
from vaeflow.flows.base import StackedFlow, initial_data, prepare_context
from vaeflow.flows.multiscale import multiscale
from vaeflow.nn import GlowNetwork


class Glow(nn.Module):
    """A multiscale flow of actnorm, invertible 1x1 convolutions and affine couplings.

    The whole flow is one bijection between flat standard normal noise and images: the learned
    Gaussian priors of the paper are affine couplings inside it. Both directions cost the same, up
    to one small matrix inversion a step from noise to data.

    Shapes: noise ``[*batch, height * width * channel]``, data ``[*batch, height, width, channel]``.

    Source: Kingma & Dhariwal 2018, "Glow: Generative Flow with Invertible 1x1 Convolutions".

    Attributes:
      event_shape: Height, width and channels of an image; height and width must be divisible by
        2^levels.
      num_levels: Number of levels L.
      num_steps: Number of steps K of each level.
      hidden_features: Number of hidden channels of the coupling networks.
      num_classes: Number of classes where the context is an integer label, otherwise None.
      context_ndims: For contexts of floats, 1 for vectors and 3 for feature maps of the height and
        width of the images.
      plu: Whether the 1x1 convolutions are kept in PLU factors.
      smallest_scale: Smallest factor of a coupling from data to noise. Sampling divides by it, so
        deep flows of few data want more than the default.
      dtype: Type in which the networks compute; parameters, states and log-determinants are
        float32.
      scan: Whether to compile the steps of a level as one loop; otherwise one by one.
      remat: Whether to backpropagate by computing hidden layers again, as `Scan` does.
      reversible: Whether to backpropagate by inverting the steps.
    """

    event_shape: tuple[int, int, int]
    num_levels: int = 3
    num_steps: int = 16
    hidden_features: int = 128
    num_classes: int | None = None
    context_ndims: int = 1
    plu: bool = False
    smallest_scale: float = 1e-3
    dtype: Any = jnp.float32
    scan: bool = True
    remat: bool = False
    reversible: bool = False

    @property
    def noise_shape(self) -> tuple[int]:
        """Shape of the noise: one entry for each number in an image."""
        return (math.prod(self.event_shape),)

    @nn.compact
    def __call__(
        self,
        context: Array | None = None,
        *,
        data: Float[Array, "batch height width channel"] | None = None,
    ) -> Bijector:
        """Builds the bijector, forward from noise to data.

        Args:
          context: Labels ``[*batch]``, vectors ``[*batch, feature]`` or feature maps
            ``[*batch, height, width, feature]``, or None.
          data: In `init`, the batch from which every actnorm is initialised; otherwise ignored.
            Without it `init` uses standard normal noise.

        Raises:
          ValueError: If the height or the width isn't divisible by 2^levels, or the data or the
            context doesn't fit.
        """
        check_image_shape("Glow", self.event_shape, self.num_levels)
        context = prepare_context(context, self.num_classes)
        batch = None if context is None else context.shape[: context.ndim - self.context_ndims]
        data = initial_data(self, data, self.event_shape, batch)
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
        squeeze = Squeeze()
        step = _GlowStep(
            channels,
            hidden_features=self.hidden_features,
            context_ndims=self.context_ndims,
            plu=self.plu,
            smallest_scale=self.smallest_scale,
            dtype=self.dtype,
        )
        stack = StackedFlow(
            step,
            num_steps=self.num_steps,
            scan=self.scan,
            remat=self.remat,
            reversible=self.reversible,
            name=f"level_{level}",
        )
        steps = stack(context, data=None if data is None else squeeze.forward(data))
        return Chain([steps, squeeze]), (height, width, channels)


@dataclasses.dataclass(frozen=True)
class _GlowStep:
    """Actnorm, then a 1x1 convolution, then an affine coupling, from data to noise.

    Source: Kingma & Dhariwal 2018, figure 2 (a) and table 1.

    Attributes:
      channels: Number of channels.
      hidden_features: Number of hidden channels of the coupling network.
      context_ndims: 1 where the context holds vectors, 3 where it holds feature maps.
      plu: Whether the 1x1 convolution is kept in PLU factors.
      smallest_scale: Smallest factor of the coupling.
      dtype: Type in which the network computes.
    """

    channels: int
    hidden_features: int
    context_ndims: int = 1
    plu: bool = False
    smallest_scale: float = 1e-3
    dtype: Any = jnp.float32

    event_ndims = 3

    @property
    def collections(self) -> tuple[str, ...]:
        """Names of the collections of the step's variables."""
        return ("params", "constants") if self.plu else ("params",)

    @property
    def split(self) -> int:
        """Number of channels that the coupling network reads."""
        return self.channels // 2

    @property
    def network(self) -> GlowNetwork:
        """The coupling network, which gives a shift and a raw log scale of each entry."""
        return GlowNetwork(
            2 * (self.channels - self.split), self.hidden_features, dtype=self.dtype, parent=None
        )

    def init(
        self, key: Array, data: Float[Array, "batch height width channel"], context: Array | None
    ) -> dict[str, Any]:
        """Standardises the data, rotates the channels at random, and leaves the rest unchanged."""
        rotation_key, network_key = jax.random.split(key)
        shift, log_scale = actnorm_parameters(data)
        weight = jax.random.orthogonal(rotation_key, self.channels)
        convolution, constants = {"weight": weight}, {}
        if self.plu:
            convolution = plu_factors(weight)
            constants = {name: convolution.pop(name) for name in ("permutation", "sign")}
        normalised = (data + shift) * jnp.exp(log_scale) @ weight
        network = self.network.init(network_key, normalised[..., : self.split], context)
        variables = {
            "params": {
                "actnorm": {"shift": shift, "log_scale": log_scale},
                "convolution": convolution,
                "coupling": network["params"],
            }
        }
        return variables | ({"constants": constants} if constants else {})

    def __call__(self, variables: dict[str, Any], context: Array | None) -> Chain:
        """Builds the step from its variables."""
        parameters = variables["params"]
        convolution = parameters["convolution"] | variables.get("constants", {})
        mix = Invertible1x1ConvolutionPLU if self.plu else Invertible1x1Convolution
        network = Conditioner(
            self.network, {"params": parameters["coupling"]}, context, 3, self.context_ndims
        )
        return Chain(
            [
                AffineCoupling(network, self.split, 3, SigmoidLogScale(self.smallest_scale)),
                mix(**convolution, event_ndims=3),
                ActNorm(**parameters["actnorm"], event_ndims=3),
            ]
        )


def check_image_shape(name: str, event_shape: tuple[int, ...], levels: int) -> None:
    """Refuses images that can't be halved once a level.

    Raises:
      ValueError: If `event_shape` isn't height, width and channels, or height or width isn't
        divisible by 2^levels.
    """
    if len(event_shape) != 3:
        raise ValueError(f"{name}: event_shape must be (height, width, channel), got {event_shape}")
    if levels < 1:
        raise ValueError(f"{name}: levels must be at least 1, got {levels}")
    if event_shape[0] % 2**levels or event_shape[1] % 2**levels:
        raise ValueError(
            f"{name}: height and width of event_shape must be divisible by {2**levels} for "
            f"num_levels={levels}, got {event_shape}"
        )
