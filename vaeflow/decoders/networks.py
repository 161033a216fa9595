"""Decoder networks, from latents to pixels, and the `Decoder` of a network and a likelihood head.

Dense, convolutional, residual and gated networks start from vectors, a `MapDecoder` from a map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import distrax
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.encoders.networks import concat_context
from vaeflow.nn import Conv, GatedConv, ResidualBlock, relu
from vaeflow.nn.convolution import TransposedConv
from vaeflow.typing import Likelihood


class Decoder(nn.Module):
    """p(x | z): a network from z to numbers for each dimension of x, and a likelihood head.

    An offset for each dimension of an image is added to the network's outputs. It is initialised so
    that the likelihood, without the network, is that of the first batch dimension by dimension.

    Shapes: latents are ``[*batch, latent]``, or maps ``[*batch, map_height, map_width, latent]``,
    with any number of batch axes, which are those of the distribution; events are `image_shape`.

    Source of the offset: Burda, Grosse & Salakhutdinov 2016, "Importance weighted autoencoders",
    whose published code sets the biases of the output so.

    Attributes:
      network: ``network(latents, context=..., shape=(height, width, feature))`` from
        ``[rows, latent]`` to ``[rows, height, width, feature]``, such as `DenseDecoder`; or from
        maps, such as `MapDecoder`.
      likelihood: ``likelihood(numbers)`` from ``[*batch, height, width, channel, parameter]`` to a
        distribution, such as `BernoulliLikelihood`.
      image_shape: Height, width and channels of an image.
      latent_ndims: Number of axes of the latents of one image: 1 for vectors, 3 for maps.
    """

    network: nn.Module
    likelihood: Likelihood
    image_shape: tuple[int, int, int]
    latent_ndims: int = 1

    @nn.compact
    def __call__(
        self,
        latents: Float[Array, "*batch_and_positions latent"],
        *,
        context: Float[Array, "*batch condition"] | None = None,
        data: Float[Array, "rows height width channel"] | None = None,
    ) -> distrax.Distribution:
        """Builds the distributions.

        Args:
          latents: One vector, or map, for each distribution.
          context: Vectors whose batch axes broadcast to those of the latents, or None.
          data: In `init` alone: the batch that initialises the offset; without it the offset is
            zero.

        Raises:
          ValueError: If the latents have too few axes, or the context's batch axes don't broadcast
            to those of the latents.
        """
        if latents.ndim < self.latent_ndims:
            raise ValueError(
                f"latents must have {self.latent_ndims} axes and those of batches before them, got "
                f"shape {latents.shape}"
            )
        batch = latents.shape[: latents.ndim - self.latent_ndims]
        rows = latents.reshape(math.prod(batch), *latents.shape[len(batch) :])
        if context is not None:
            try:
                context = jnp.broadcast_to(context, (*batch, context.shape[-1]))
            except ValueError:
                raise ValueError(
                    f"context of shape {context.shape} has batch axes that don't broadcast to "
                    f"those of the latents of shape {latents.shape}"
                ) from None
            context = context.reshape(rows.shape[0], context.shape[-1])
        *positions, channels = self.image_shape
        parameters = self.likelihood.num_parameters
        numbers = self.network(rows, context=context, shape=(*positions, channels * parameters))
        numbers = numbers.reshape(*batch, *self.image_shape, parameters)
        numbers = numbers.astype(jnp.promote_types(numbers.dtype, jnp.float32))

        def initial(_):
            if data is None:
                return jnp.zeros((*self.image_shape, parameters), jnp.float32)
            return self.likelihood.initial(data).astype(jnp.float32)

        return self.likelihood(numbers + self.param("offset", initial))


class _ImageDecoder(nn.Module):
    """Base of networks to images, which compute in the field `dtype`."""

    @nn.compact
    def __call__(
        self,
        latents: Float[Array, "batch *positions latent"],
        *,
        context: Float[Array, "batch condition"] | None = None,
        shape: tuple[int, int, int],
    ) -> Float[Array, "batch height width feature"]:
        """Maps latents to images of `shape`: height, width and features.

        A context is concatenated to the latents, or to every position of maps of latents.
        """
        return self.layers(concat_context(latents, context).astype(self.dtype), shape)

    def layers(self, latents: Array, shape: tuple[int, int, int]) -> Array:
        """Computes the images, in a subclass."""
        raise NotImplementedError


class DenseDecoder(_ImageDecoder):
    """A multilayer perceptron to all dimensions of an image.

    Attributes:
      hidden_sizes: Sizes of the hidden layers, each followed by the activation.
      activation: The nonlinearity.
      dtype: Type to compute in.
    """

    hidden_sizes: Sequence[int] = (200, 200)
    activation: Callable[[Array], Array] = nn.tanh
    dtype: Any = jnp.float32

    def layers(
        self, latents: Float[Array, "batch latent"], shape: tuple[int, int, int]
    ) -> Float[Array, "batch height width feature"]:
        """Computes the images."""
        x = latents
        for size in self.hidden_sizes:
            x = self.activation(nn.Dense(size, dtype=self.dtype)(x))
        # The offset of the decoder is its bias.
        x = nn.Dense(math.prod(shape), use_bias=False, dtype=self.dtype)(x)
        return x.reshape(-1, *shape)


def smallest_map(
    latents: Float[Array, "batch latent"], size: tuple[int, int], channels: int, dtype: Any
) -> Float[Array, "batch height width channel"]:
    """Maps latents to the smallest feature map, by one dense layer."""
    height, width = size
    x = nn.Dense(height * width * channels, dtype=dtype)(latents)
    return x.reshape(-1, height, width, channels)


def halvings(shape: tuple[int, int, int], count: int) -> list[tuple[int, int]]:
    """Lists heights and widths of the image and of `count` successive halvings, rounded up."""
    height, width, _ = shape
    return [(-(-height // 2**level), -(-width // 2**level)) for level in range(count + 1)]


def upsample(
    x: Float[Array, "batch height width channel"], size: tuple[int, int]
) -> Float[Array, "batch out_height out_width channel"]:
    """Repeats each pixel twice in both directions, and crops to `size`."""
    x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    return x[:, : size[0], : size[1]]


class ConvolutionalDecoder(_ImageDecoder):
    """A dense layer, then at each level nearest-neighbour upsampling and a 3x3 convolution.

    Images may have any size. Upsampling before convolving avoids checkerboard artifacts.

    Source: Odena, Dumoulin & Olah 2016, "Deconvolution and checkerboard artifacts".

    Attributes:
      channels: Channels of each level from the smallest map on.
      activation: The nonlinearity after each layer but the last.
      dtype: Type to compute in.
    """

    channels: Sequence[int] = (64, 32)
    activation: Callable[[Array], Array] = relu
    dtype: Any = jnp.float32

    def layers(
        self, latents: Float[Array, "batch latent"], shape: tuple[int, int, int]
    ) -> Float[Array, "batch height width feature"]:
        """Computes the images."""
        sizes = halvings(shape, len(self.channels))
        x = smallest_map(latents, sizes[-1], self.channels[0], self.dtype)
        for channels, size in zip(self.channels, sizes[-2::-1], strict=True):
            x = upsample(self.activation(x), size)
            x = Conv(channels, (3, 3), dtype=self.dtype)(x)
        return Conv(shape[-1], (3, 3), dtype=self.dtype)(self.activation(x))


class ResidualDecoder(_ImageDecoder):
    """A dense layer, then at each level residual blocks, upsampling and a 3x3 convolution.

    Attributes:
      channels: Channels of each level from the smallest map on.
      num_blocks: Residual blocks of a level.
      dtype: Type to compute in.
    """

    channels: Sequence[int] = (64, 64)
    num_blocks: int = 2
    dtype: Any = jnp.float32

    def layers(
        self, latents: Float[Array, "batch latent"], shape: tuple[int, int, int]
    ) -> Float[Array, "batch height width feature"]:
        """Computes the images."""
        sizes = halvings(shape, len(self.channels))
        x = smallest_map(latents, sizes[-1], self.channels[0], self.dtype)
        for channels, size in zip(self.channels, sizes[-2::-1], strict=True):
            for _ in range(self.num_blocks):
                x = ResidualBlock(dtype=self.dtype)(x)
            x = Conv(channels, (3, 3), dtype=self.dtype)(upsample(x, size))
        return Conv(shape[-1], (3, 3), dtype=self.dtype)(relu(x))


class GatedDecoder(_ImageDecoder):
    """The mirror of `vaeflow.encoders.GatedEncoder`: gated 5x5 convolutions and two upsamplings.

    Source: van den Berg, Hasenclever, Tomczak & Welling 2018, "Sylvester normalizing flows for
    variational inference", appendix B, at width 32, with upsampling in place of strides.

    Attributes:
      hidden_features: Channels of the last layers; earlier ones have twice as many.
      dtype: Type to compute in.
    """

    hidden_features: int = 32
    dtype: Any = jnp.float32

    def layers(
        self, latents: Float[Array, "batch latent"], shape: tuple[int, int, int]
    ) -> Float[Array, "batch height width feature"]:
        """Computes the images."""
        sizes = halvings(shape, 2)
        x = smallest_map(latents, sizes[-1], 4 * self.hidden_features, self.dtype)
        values, gates = jnp.split(x, 2, axis=-1)
        x = values * nn.sigmoid(gates)
        for factor, level in ((2, 2), (1, 1), (1, 1), (1, 0), (1, 0)):
            x = x if x.shape[1:3] == sizes[level] else upsample(x, sizes[level])
            x = GatedConv(factor * self.hidden_features, (5, 5), dtype=self.dtype)(x)
        return Conv(shape[-1], (1, 1), dtype=self.dtype)(x)


class MapDecoder(_ImageDecoder):
    """The mirror of `vaeflow.encoders.MapEncoder`: residual blocks and transposed convolutions.

    Source: van den Oord, Vinyals & Kavukcuoglu 2017, "Neural discrete representation learning",
    section 4.1.

    Attributes:
      channels: Channels before each transposed convolution of stride 2, from the smallest map on.
      num_blocks: Number of residual blocks.
      hidden_features: Channels within a block; the first of `channels` where None.
      dtype: Type to compute in.
    """

    channels: Sequence[int] = (128, 64)
    num_blocks: int = 2
    hidden_features: int | None = None
    dtype: Any = jnp.float32

    def layers(
        self,
        latents: Float[Array, "batch map_height map_width latent"],
        shape: tuple[int, int, int],
    ) -> Float[Array, "batch height width feature"]:
        """Computes the images.

        Raises:
          ValueError: If the map's size isn't that of the image halved once for each level, or there
            are no channels.
        """
        if not self.channels:
            raise ValueError("MapDecoder: channels must be those of at least one level, got none")
        sizes = halvings(shape, len(self.channels))
        if latents.shape[1:3] != sizes[-1]:
            expected = (latents.shape[0], *sizes[-1], latents.shape[-1])
            raise ValueError(
                f"MapDecoder: expected latents of shape {expected} for images of shape {shape}, "
                f"got {latents.shape}"
            )
        x = Conv(self.channels[0], (3, 3), dtype=self.dtype)(latents)
        for _ in range(self.num_blocks):
            x = ResidualBlock(self.hidden_features, dtype=self.dtype)(x)
        for channels, size in zip((*self.channels[1:], shape[-1]), sizes[-2::-1], strict=True):
            x = TransposedConv(channels, dtype=self.dtype)(relu(x), size)
        return x
