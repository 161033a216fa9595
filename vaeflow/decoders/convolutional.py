"""Convolutional networks from latents to features of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.nn import Conv, GatedConv, ResidualBlock, relu


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
      blocks: Residual blocks of a level.
      dtype: Type to compute in.
    """

    channels: Sequence[int] = (64, 64)
    blocks: int = 2
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
            for _ in range(self.blocks):
                x = ResidualBlock(dtype=self.dtype)(x)
            x = Conv(channels, (3, 3), dtype=self.dtype)(doubled(x, size))
        return Conv(shape[-1], (3, 3), dtype=self.dtype)(relu(x))


class GatedDecoder(nn.Module):
    """The mirror of `vaeflow.encoders.GatedEncoder`: gated 5x5 convolutions, pixels doubled twice.

    Source: van den Berg, Hasenclever, Tomczak & Welling 2018, "Sylvester normalizing flows for
    variational inference", appendix B, at width 32, with doubled pixels for strides.

    Attributes:
      width: Channels of the last layers; earlier ones have twice as many.
      dtype: Type to compute in.
    """

    width: int = 32
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
        both = smallest_map(latents, context, sizes, 4 * self.width, self.dtype)
        values, gates = jnp.split(both, 2, axis=-1)
        x = values * nn.sigmoid(gates)
        for factor, level in ((2, 2), (1, 1), (1, 1), (1, 0), (1, 0)):
            x = x if x.shape[1:3] == sizes[level] else doubled(x, sizes[level])
            x = GatedConv(factor * self.width, (5, 5), dtype=self.dtype)(x)
        return Conv(shape[-1], (1, 1), dtype=self.dtype)(x)
