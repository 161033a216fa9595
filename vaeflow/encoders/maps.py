"""Fully convolutional networks from images to maps of features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.encoders.convolutional import with_context
from vaeflow.nn import Conv, ResidualBlock, relu


class MapEncoder(nn.Module):
    """4x4 convolutions of stride 2, residual blocks, and a 1x1 convolution to the features.

    Source: van den Oord, Vinyals & Kavukcuoglu 2017, "Neural discrete representation learning",
    section 4.1.

    Attributes:
      channels: Channels of each convolution; each halves height and width, rounded up.
      features: Number of features at each position.
      blocks: Number of residual blocks.
      hidden: Channels within a block; those of the last convolution where None.
      dtype: Type to compute in; the features are float32 or wider.
    """

    channels: Sequence[int] = (64, 128)
    features: int = 64
    blocks: int = 2
    hidden: int | None = None
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
        for _ in range(self.blocks):
            x = ResidualBlock(self.hidden, dtype=self.dtype)(x)
        x = Conv(self.features, (1, 1), dtype=self.dtype)(relu(x))
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))
