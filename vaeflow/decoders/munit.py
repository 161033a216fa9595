"""The AdaIN decoder of MUNIT: a content map and a style vector to an image.

Source: Huang, Liu, Belongie & Kautz 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.decoders.networks import halvings
from vaeflow.nn import Conv, relu
from vaeflow.nn.blocks import MODULATIONS, InstanceNormBlock
from vaeflow.nn.convolution import UpsampleConv
from vaeflow.nn.normalization import ImageLayerNorm


class AdaINDecoder(nn.Module):
    """Residual blocks modulated by the style, then upsampling convolutions, and a 7x7 one.

    A multilayer perceptron maps the style to the deviations and means of all features in all
    blocks (`vaeflow.nn.normalization.adaptive_instance_norm`); the layers after them have layer
    normalization, which keeps them.

    Source: Huang, Liu, Belongie & Kautz 2018, "Multimodal unsupervised image-to-image translation",
    section 5.1 and appendix B, whose sizes for images of 256 pixels are the default.

    Attributes:
      channels: Channels of the map of content, then of each upsampling convolution.
      num_blocks: Number of residual blocks.
      hidden_sizes: Sizes of the hidden layers of the perceptron.
      dtype: Type to compute in; the values are float32 or wider.
    """

    channels: Sequence[int] = (256, 128, 64)
    num_blocks: int = 4
    hidden_sizes: Sequence[int] = (256, 256)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        content: Float[Array, "batch map_height map_width content"],
        style: Float[Array, "batch style"],
        *,
        shape: tuple[int, int, int],
    ) -> Float[Array, "batch height width channel"]:
        """Computes images of `shape` with values from -1 to 1.

        Args:
          content: Maps, of the size of the image halved once for each upsampling.
          style: One vector for each map.
          shape: Height, width and channels of an image.

        Raises:
          ValueError: If content or style are of another shape.
        """
        sizes = halvings(shape, len(self.channels) - 1)
        expected = (*style.shape[:1], *sizes[-1], self.channels[0])
        if content.shape != expected or style.ndim != 2:
            raise ValueError(
                f"AdaINDecoder: expected content of shape {expected} and style [batch, style] for "
                f"images of shape {shape}, got {content.shape} and {style.shape}"
            )
        numbers = style.astype(self.dtype)
        for size in self.hidden_sizes:
            numbers = relu(nn.Dense(size, dtype=self.dtype)(numbers))
        per_block = MODULATIONS * self.channels[0]
        modulation = nn.Dense(self.num_blocks * per_block, dtype=self.dtype)(numbers)
        x = content.astype(self.dtype)
        for block in range(self.num_blocks):
            part = modulation[:, block * per_block : (block + 1) * per_block]
            x = InstanceNormBlock(self.dtype)(x, part)
        he_normal = nn.initializers.he_normal()
        for stage, (channels, size) in enumerate(
            zip(self.channels[1:], sizes[-2::-1], strict=True)
        ):
            # The name of saved parameters, which outlives that of the class.
            upsample = UpsampleConv(
                channels, dtype=self.dtype, kernel_init=he_normal, name=f"DoubledConv_{stage}"
            )
            x = upsample(x, size)
            x = relu(ImageLayerNorm(self.dtype)(x))
        x = Conv(shape[-1], (7, 7), padding="REFLECT", dtype=self.dtype)(x)
        return jnp.tanh(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
