"""Encoder networks: dense, convolutional, gated, residual, and maps of features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import distrax
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.nn import Conv, GatedConv, ResidualBlock, relu


class Encoder(nn.Module):
    """Computes q(z | x): a network makes features of x, and a posterior a distribution of them.

    Attributes:
      network: ``network(values, context)`` from ``[batch, height, width, channel]`` to features
        ``[batch, feature]``, such as `DenseEncoder`.
      posterior: ``posterior(features)`` to a distribution with the batch axis of the features, such
        as `DiagonalGaussianPosterior`.
    """

    network: nn.Module
    posterior: nn.Module

    def __call__(
        self,
        values: Float[Array, "batch height width channel"],
        context: Float[Array, "batch condition"] | None = None,
    ) -> distrax.Distribution:
        """Builds the distributions of the latents, ``[batch]`` of them."""
        return self.posterior(self.network(values, context))


class DenseEncoder(nn.Module):
    """A multilayer perceptron over all entries of an image.

    A context is concatenated to the entries.

    Attributes:
      hidden_sizes: Sizes of the layers, each followed by the activation; the last makes the features.
      activation: The nonlinearity.
      dtype: Type to compute in; the features are float32 or wider.
    """

    hidden_sizes: Sequence[int] = (200, 200)
    activation: Callable[[Array], Array] = nn.tanh
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        values: Float[Array, "batch height width channel"],
        context: Float[Array, "batch condition"] | None = None,
    ) -> Float[Array, "batch feature"]:
        """Maps images to features."""
        x = values.reshape(values.shape[0], -1)
        if context is not None:
            x = jnp.concatenate([x, context.astype(x.dtype)], axis=-1)
        x = x.astype(self.dtype)
        for size in self.hidden_sizes:
            x = self.activation(nn.Dense(size, dtype=self.dtype)(x))
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


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
      num_blocks: Residual blocks of a level.
      features: Number of features.
      dtype: Type to compute in; the features are float32 or wider.
    """

    channels: Sequence[int] = (64, 64)
    num_blocks: int = 2
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
            for _ in range(self.num_blocks):
                x = ResidualBlock(dtype=self.dtype)(x)
        return relu(features_of(relu(x), self.features, self.dtype))


class GatedEncoder(nn.Module):
    """Gated 5x5 convolutions, two of them of stride 2, then one over all that is left.

    Source: van den Berg, Hasenclever, Tomczak & Welling 2018, "Sylvester normalizing flows for
    variational inference", appendix B, at width 32.

    Attributes:
      hidden_features: Channels of the first layers; later ones have twice as many, the features eight times.
      dtype: Type to compute in; the features are float32 or wider.
    """

    hidden_features: int = 32
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
            x = GatedConv(
                factor * self.hidden_features, (5, 5), (stride, stride), dtype=self.dtype
            )(x)
        # Over everything that is left, a convolution is a dense layer.
        both = features_of(x, 16 * self.hidden_features, self.dtype)
        kept, gates = jnp.split(both, 2, axis=-1)
        return kept * nn.sigmoid(gates)


class MapEncoder(nn.Module):
    """4x4 convolutions of stride 2, residual blocks, and a 1x1 convolution to the features.

    Source: van den Oord, Vinyals & Kavukcuoglu 2017, "Neural discrete representation learning",
    section 4.1.

    Attributes:
      channels: Channels of each convolution; each halves height and width, rounded up.
      features: Number of features at each position.
      num_blocks: Number of residual blocks.
      hidden_features: Channels within a block; those of the last convolution where None.
      dtype: Type to compute in; the features are float32 or wider.
    """

    channels: Sequence[int] = (64, 128)
    features: int = 64
    num_blocks: int = 2
    hidden_features: int | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        values: Float[Array, "batch height width channel"],
        context: Float[Array, "batch condition"] | None = None,
    ) -> Float[Array, "batch map_height map_width feature"]:
        """Maps images, or maps of features, to smaller maps."""
        x = with_context(values, context).astype(self.dtype)
        for level, channels in enumerate(self.channels):
            x = Conv(channels, (4, 4), (2, 2), dtype=self.dtype)(relu(x) if level else x)
        for _ in range(self.num_blocks):
            x = ResidualBlock(self.hidden_features, dtype=self.dtype)(x)
        x = Conv(self.features, (1, 1), dtype=self.dtype)(relu(x))
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))
