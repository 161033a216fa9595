"""Encoder networks, from images to features, and the `Encoder` of a network and a posterior head.

Dense, convolutional, residual and gated networks compute one vector, a `MapEncoder` computes a map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import distrax
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.nn import Conv, GatedConv, ResidualBlock, relu
from vaeflow.typing import Posterior


class Encoder(nn.Module):
    """q(z | x): a network from x to features, and a posterior head from features to q.

    Attributes:
      network: ``network(values, context=...)`` from ``[batch, height, width, channel]`` to features
        ``[batch, feature]``, such as `DenseEncoder`.
      posterior: ``posterior(features)`` to a distribution with the batch axis of the features, such
        as `DiagonalGaussianPosterior`.
    """

    network: nn.Module
    posterior: Posterior

    def __call__(
        self,
        values: Float[Array, "batch height width channel"],
        *,
        context: Float[Array, "batch condition"] | None = None,
    ) -> distrax.Distribution:
        """Builds the distributions of the latents, ``[batch]`` of them."""
        return self.posterior(self.network(values, context=context))


class DenseEncoder(nn.Module):
    """A multilayer perceptron over all dimensions of an image and of its context.

    Attributes:
      hidden_sizes: Sizes of the layers, each followed by the activation; the last has the features.
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
        *,
        context: Float[Array, "batch condition"] | None = None,
    ) -> Float[Array, "batch feature"]:
        """Maps images to features."""
        x = concat_context(flatten(values), context).astype(self.dtype)
        for size in self.hidden_sizes:
            x = self.activation(nn.Dense(size, dtype=self.dtype)(x))
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def flatten(x: Float[Array, "batch *positions channel"]) -> Float[Array, "batch feature"]:
    """Joins all axes but the first, of which there may be none."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def concat_context(
    x: Float[Array, "batch *positions channel"], context: Float[Array, "batch condition"] | None
) -> Float[Array, "batch *positions feature"]:
    """Concatenates a context to vectors, or to every position of maps."""
    if context is None:
        return x
    context = jnp.expand_dims(context.astype(x.dtype), range(1, x.ndim - 1))
    maps = jnp.broadcast_to(context, (*x.shape[:-1], context.shape[-1]))
    return jnp.concatenate([x, maps], axis=-1)


class _ImageEncoder(nn.Module):
    """Base of networks of convolutions, which compute in the field `dtype`."""

    @nn.compact
    def __call__(
        self,
        values: Float[Array, "batch height width channel"],
        *,
        context: Float[Array, "batch condition"] | None = None,
    ) -> Float[Array, "batch *positions feature"]:
        """Maps images to features, float32 or wider; a context is added as constant channels."""
        return self.layers(concat_context(values, context).astype(self.dtype))

    def layers(self, x: Array) -> Array:
        """Computes the features, in a subclass."""
        raise NotImplementedError


def dense_features(
    x: Float[Array, "batch height width channel"], features: int, dtype: Any
) -> Float[Array, "batch feature"]:
    """Maps flattened maps to features by one dense layer, in float32 or wider."""
    x = nn.Dense(features, dtype=dtype)(flatten(x))
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class ConvolutionalEncoder(_ImageEncoder):
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

    def layers(
        self, x: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch feature"]:
        """Computes the features."""
        for channels in self.channels:
            x = self.activation(Conv(channels, (4, 4), (2, 2), dtype=self.dtype)(x))
        return self.activation(dense_features(x, self.features, self.dtype))


class ResidualEncoder(_ImageEncoder):
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

    def layers(
        self, x: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch feature"]:
        """Computes the features."""
        for channels in self.channels:
            x = Conv(channels, (4, 4), (2, 2), dtype=self.dtype)(x)
            for _ in range(self.num_blocks):
                x = ResidualBlock(dtype=self.dtype)(x)
        return relu(dense_features(relu(x), self.features, self.dtype))


class GatedEncoder(_ImageEncoder):
    """Gated 5x5 convolutions, two of them of stride 2, then one over the whole map.

    Source: van den Berg, Hasenclever, Tomczak & Welling 2018, "Sylvester normalizing flows for
    variational inference", appendix B, at width 32.

    Attributes:
      hidden_features: Channels of the first layers; later ones have twice as many, and there are
        eight times as many features.
      dtype: Type to compute in; the features are float32 or wider.
    """

    hidden_features: int = 32
    dtype: Any = jnp.float32

    def layers(
        self, x: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch feature"]:
        """Computes the features."""
        for factor, stride in ((1, 1), (1, 2), (2, 1), (2, 2), (2, 1)):
            x = GatedConv(
                factor * self.hidden_features, (5, 5), (stride, stride), dtype=self.dtype
            )(x)
        # Over the whole map, a convolution is a dense layer.
        x = dense_features(x, 16 * self.hidden_features, self.dtype)
        features, gates = jnp.split(x, 2, axis=-1)
        return features * nn.sigmoid(gates)


class MapEncoder(_ImageEncoder):
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

    def layers(
        self, x: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch map_height map_width feature"]:
        """Computes smaller maps from images, or from maps of features."""
        for level, channels in enumerate(self.channels):
            x = Conv(channels, (4, 4), (2, 2), dtype=self.dtype)(relu(x) if level else x)
        for _ in range(self.num_blocks):
            x = ResidualBlock(self.hidden_features, dtype=self.dtype)(x)
        x = Conv(self.features, (1, 1), dtype=self.dtype)(relu(x))
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))
