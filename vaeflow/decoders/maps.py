"""Fully convolutional networks from maps of latents to features of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.decoders.convolutional import halvings
from vaeflow.encoders.convolutional import with_context
from vaeflow.nn import Conv, ResidualBlock, TransposedConv, relu


class MapDecoder(nn.Module):
    """The mirror of `vaeflow.encoders.MapEncoder`: residual blocks, and convolutions that double.

    Source: van den Oord, Vinyals & Kavukcuoglu 2017, "Neural discrete representation learning",
    section 4.1.

    Attributes:
      channels: Channels before each transposed convolution of stride 2, from the smallest map on.
      blocks: Number of residual blocks.
      hidden: Channels within a block; the first of `channels` where None.
      dtype: Type to compute in.
    """

    channels: Sequence[int] = (128, 64)
    blocks: int = 2
    hidden: int | None = None
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
        for _ in range(self.blocks):
            x = ResidualBlock(self.hidden, dtype=self.dtype)(x)
        for channels, size in zip((*self.channels[1:], shape[-1]), sizes[-2::-1], strict=True):
            x = TransposedConv(channels, dtype=self.dtype)(relu(x), size)
        return x
