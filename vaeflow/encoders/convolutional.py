"""Convolutional networks from images to features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.nn import Conv, GatedConv, ResidualBlock, relu


def with_context(
    values: Float[Array, "batch height width channel"],
    context: Float[Array, "batch condition"] | None,
) -> Float[Array, "batch height width feature"]:
    """Adds a context to an image as constant channels."""
    if context is None:
        return values
    maps = jnp.broadcast_to(
        context[:, None, None, :].astype(values.dtype), (*values.shape[:3], context.shape[-1])
    )
    return jnp.concatenate([values, maps], axis=-1)


def features_of(
    x: Float[Array, "batch height width channel"], features: int, dtype: Any
) -> Float[Array, "batch feature"]:
    """Makes features of all that convolutions left, by one dense layer, in float32 or wider."""
    x = nn.Dense(features, dtype=dtype)(x.reshape(x.shape[0], -1))
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class ConvolutionalEncoder(nn.Module):
    """4x4 convolutions of stride 2, then a dense layer; images of any size.

    Attributes:
      channels: Channels of each convolution; each halves height and width, rounded up.
      features: Number of features.
      activation: The nonlinearity after each layer.
      dtype: Type to compute in; the features are float32 or wider.
    """

    channels: Sequence[int] = (32, 64)
    features: int = 256
    activation: Callable[[Array], Array] = relu
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        values: Float[Array, "batch height width channel"],
        context: Float[Array, "batch condition"] | None = None,
    ) -> Float[Array, "batch feature"]:
        """Maps images to features."""
        x = with_context(values, context).astype(self.dtype)
        for channels in self.channels:
            x = self.activation(Conv(channels, (4, 4), (2, 2), dtype=self.dtype)(x))
        return self.activation(features_of(x, self.features, self.dtype))


class ResidualEncoder(nn.Module):
    """At each level a 4x4 convolution of stride 2 and residual blocks; then a dense layer.

    Attributes:
      channels: Channels of each level; each halves height and width, rounded up.
      blocks: Residual blocks of a level.
      features: Number of features.
      dtype: Type to compute in; the features are float32 or wider.
    """

    channels: Sequence[int] = (64, 64)
    blocks: int = 2
    features: int = 256
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        values: Float[Array, "batch height width channel"],
        context: Float[Array, "batch condition"] | None = None,
    ) -> Float[Array, "batch feature"]:
        """Maps images to features."""
        x = with_context(values, context).astype(self.dtype)
        for channels in self.channels:
            x = Conv(channels, (4, 4), (2, 2), dtype=self.dtype)(x)
            for _ in range(self.blocks):
                x = ResidualBlock(dtype=self.dtype)(x)
        return relu(features_of(relu(x), self.features, self.dtype))


class GatedEncoder(nn.Module):
    """Gated 5x5 convolutions, two of them of stride 2, then one over all that is left.

    Source: van den Berg, Hasenclever, Tomczak & Welling 2018, "Sylvester normalizing flows for
    variational inference", appendix B, at width 32.

    Attributes:
      width: Channels of the first layers; later ones have twice as many, the features eight times.
      dtype: Type to compute in; the features are float32 or wider.
    """

    width: int = 32
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        values: Float[Array, "batch height width channel"],
        context: Float[Array, "batch condition"] | None = None,
    ) -> Float[Array, "batch feature"]:
        """Maps images to features."""
        x = with_context(values, context).astype(self.dtype)
        for factor, stride in ((1, 1), (1, 2), (2, 1), (2, 2), (2, 1)):
            x = GatedConv(factor * self.width, (5, 5), (stride, stride), dtype=self.dtype)(x)
        # Over everything that is left, a convolution is a dense layer.
        both = features_of(x, 16 * self.width, self.dtype)
        kept, gates = jnp.split(both, 2, axis=-1)
        return kept * nn.sigmoid(gates)
