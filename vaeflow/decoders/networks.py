"""Decoder networks: dense, convolutional, gated, residual, and from maps of features."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import distrax
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.encoders.networks import with_context
from vaeflow.nn import Conv, GatedConv, ResidualBlock, relu
from vaeflow.nn.convolution import TransposedConv


class Decoder(nn.Module):
    """Computes p(x | z): a network makes numbers for each entry of x, a likelihood a distribution.

    To what the network answers an offset is added for each entry of an image. It is initialised to
    the likelihood of the first batch, entry by entry, whatever z: what z changes is the network's.

    Shapes: latents are ``[*batch, latent]``, or maps ``[*batch, map_height, map_width, latent]``,
    with any number of batch axes, which are those of the distribution; events are `image_shape`.

    Source of the offset: Burda, Grosse & Salakhutdinov 2016, "Importance weighted autoencoders",
    whose published code sets the biases of the output so.

    Attributes:
      network: ``network(latents, context, shape=(height, width, feature))`` from ``[rows, latent]``
        to ``[rows, height, width, feature]``, such as `DenseDecoder`; or from maps, such as
        `MapDecoder`.
      likelihood: ``likelihood(numbers)`` from ``[*batch, height, width, channel, parameter]`` to a
        distribution, such as `BernoulliLikelihood`.
      image_shape: Height, width and channels of an image.
      latent_ndims: Number of axes of the latents of one image: 1 for vectors, 3 for maps.
    """

    network: nn.Module
    likelihood: nn.Module
    image_shape: tuple[int, int, int]
    latent_ndims: int = 1

    @nn.compact
    def __call__(
        self,
        latents: Float[Array, "*batch_and_positions latent"],
        context: Float[Array, "*batch condition"] | None = None,
        *,
        data: Float[Array, "rows height width channel"] | None = None,
    ) -> distrax.Distribution:
        """Builds the distributions.

        Args:
          latents: One vector, or map, for each distribution.
          context: Vectors whose batch axes broadcast to those of the latents, or None.
          data: In `init` alone: the batch that the offset is initialised from; without it the
            offset is zero.

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
            context = context.reshape(rows.shape[0], -1)
        *positions, channels = self.image_shape
        parameters = self.likelihood.num_parameters
        numbers = self.network(rows, context, shape=(*positions, channels * parameters))
        numbers = numbers.reshape(*batch, *self.image_shape, parameters)
        numbers = numbers.astype(jnp.promote_types(numbers.dtype, jnp.float32))

        def initial(_):
            if data is None:
                return jnp.zeros((*self.image_shape, parameters))
            return self.likelihood.initial(data)

        return self.likelihood(numbers + self.param("offset", initial))


class DenseDecoder(nn.Module):
    """A multilayer perceptron to all entries of an image.

    A context is concatenated to the latents.

    Attributes:
      hidden_sizes: Sizes of the hidden layers, each followed by the activation.
      activation: The nonlinearity.
      dtype: Type to compute in.
    """

    hidden_sizes: Sequence[int] = (200, 200)
    activation: Callable[[Array], Array] = nn.tanh
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        latents: Float[Array, "batch latent"],
        context: Float[Array, "batch condition"] | None = None,
        *,
        shape: tuple[int, int, int],
    ) -> Float[Array, "batch height width feature"]:
        """Maps latents to images of `shape`: height, width and features."""
        x = latents
        if context is not None:
            x = jnp.concatenate([x, context.astype(x.dtype)], axis=-1)
        x = x.astype(self.dtype)
        for size in self.hidden_sizes:
            x = self.activation(nn.Dense(size, dtype=self.dtype)(x))
        # The offset of the decoder is its bias.
        x = nn.Dense(math.prod(shape), use_bias=False, dtype=self.dtype)(x)
        return x.reshape(-1, *shape)


def smallest_map(
    latents: Float[Array, "batch latent"],
    context: Float[Array, "batch condition"] | None,
    sizes: Sequence[tuple[int, int]],
    channels: int,
    dtype: Any,
) -> Float[Array, "batch height width channel"]:
    """Makes the smallest feature map of latents and context, by one dense layer."""
    if context is not None:
        latents = jnp.concatenate([latents, context.astype(latents.dtype)], axis=-1)
    height, width = sizes[-1]
    x = nn.Dense(height * width * channels, dtype=dtype)(latents.astype(dtype))
    return x.reshape(-1, height, width, channels)


def halvings(shape: tuple[int, int, int], count: int) -> list[tuple[int, int]]:
    """Lists heights and widths from the image's to that halved `count` times, rounded up."""
    height, width, _ = shape
    return [(-(-height // 2**level), -(-width // 2**level)) for level in range(count + 1)]


def doubled(
    x: Float[Array, "batch height width channel"], size: tuple[int, int]
) -> Float[Array, "batch out_height out_width channel"]:
    """Repeats each pixel twice in both directions, and cuts off what goes beyond `size`."""
    x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    return x[:, : size[0], : size[1]]


class ConvolutionalDecoder(nn.Module):
    """A dense layer, then at each level pixels are doubled and convolved 3x3; images of any size.

    Doubling and convolving has no checkerboard of overlapping strides.

    Source of that: Odena, Dumoulin & Olah 2016, "Deconvolution and checkerboard artifacts".

    Attributes:
      channels: Channels of each level from the smallest map on.
      activation: The nonlinearity after each layer but the last.
      dtype: Type to compute in.
    """

    channels: Sequence[int] = (64, 32)
    activation: Callable[[Array], Array] = relu
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        latents: Float[Array, "batch latent"],
        context: Float[Array, "batch condition"] | None = None,
        *,
        shape: tuple[int, int, int],
    ) -> Float[Array, "batch height width feature"]:
        """Maps latents to images of `shape`: height, width and features."""
        sizes = halvings(shape, len(self.channels))
        x = smallest_map(latents, context, sizes, self.channels[0], self.dtype)
        for channels, size in zip(self.channels, sizes[-2::-1], strict=True):
            x = doubled(self.activation(x), size)
            x = Conv(channels, (3, 3), dtype=self.dtype)(x)
        return Conv(shape[-1], (3, 3), dtype=self.dtype)(self.activation(x))


class ResidualDecoder(nn.Module):
    """A dense layer, then at each level residual blocks, doubled pixels and a 3x3 convolution.

    Attributes:
      channels: Channels of each level from the smallest map on.
      num_blocks: Residual blocks of a level.
      dtype: Type to compute in.
    """

    channels: Sequence[int] = (64, 64)
    num_blocks: int = 2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        latents: Float[Array, "batch latent"],
        context: Float[Array, "batch condition"] | None = None,
        *,
        shape: tuple[int, int, int],
    ) -> Float[Array, "batch height width feature"]:
        """Maps latents to images of `shape`: height, width and features."""
        sizes = halvings(shape, len(self.channels))
        x = smallest_map(latents, context, sizes, self.channels[0], self.dtype)
        for channels, size in zip(self.channels, sizes[-2::-1], strict=True):
            for _ in range(self.num_blocks):
                x = ResidualBlock(dtype=self.dtype)(x)
            x = Conv(channels, (3, 3), dtype=self.dtype)(doubled(x, size))
        return Conv(shape[-1], (3, 3), dtype=self.dtype)(relu(x))


class GatedDecoder(nn.Module):
    """The mirror of `vaeflow.encoders.GatedEncoder`: gated 5x5 convolutions, pixels doubled twice.

    Source: van den Berg, Hasenclever, Tomczak & Welling 2018, "Sylvester normalizing flows for
    variational inference", appendix B, at width 32, with doubled pixels for strides.

    Attributes:
      hidden_features: Channels of the last layers; earlier ones have twice as many.
      dtype: Type to compute in.
    """

    hidden_features: int = 32
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        latents: Float[Array, "batch latent"],
        context: Float[Array, "batch condition"] | None = None,
        *,
        shape: tuple[int, int, int],
    ) -> Float[Array, "batch height width feature"]:
        """Maps latents to images of `shape`: height, width and features."""
        sizes = halvings(shape, 2)
        both = smallest_map(latents, context, sizes, 4 * self.hidden_features, self.dtype)
        values, gates = jnp.split(both, 2, axis=-1)
        x = values * nn.sigmoid(gates)
        for factor, level in ((2, 2), (1, 1), (1, 1), (1, 0), (1, 0)):
            x = x if x.shape[1:3] == sizes[level] else doubled(x, sizes[level])
            x = GatedConv(factor * self.hidden_features, (5, 5), dtype=self.dtype)(x)
        return Conv(shape[-1], (1, 1), dtype=self.dtype)(x)


class MapDecoder(nn.Module):
    """The mirror of `vaeflow.encoders.MapEncoder`: residual blocks, and convolutions that double.

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

    @nn.compact
    def __call__(
        self,
        latents: Float[Array, "batch map_height map_width latent"],
        context: Float[Array, "batch condition"] | None = None,
        *,
        shape: tuple[int, int, int],
    ) -> Float[Array, "batch height width feature"]:
        """Maps latents to images of `shape`: height, width and features.

        Raises:
          ValueError: If the map isn't as large as halving the image once a level makes it, or there
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
        x = Conv(self.channels[0], (3, 3), dtype=self.dtype)(
            with_context(latents, context).astype(self.dtype)
        )
        for _ in range(self.num_blocks):
            x = ResidualBlock(self.hidden_features, dtype=self.dtype)(x)
        for channels, size in zip((*self.channels[1:], shape[-1]), sizes[-2::-1], strict=True):
            x = TransposedConv(channels, dtype=self.dtype)(relu(x), size)
        return x
