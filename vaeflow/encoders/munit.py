"""Content and style encoders of MUNIT: images to a content map, and to a global style vector.

Source: Huang, Liu, Belongie & Kautz 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.nn import Conv, relu
from vaeflow.nn.blocks import InstanceNormBlock
from vaeflow.nn.normalization import instance_norm


class ContentEncoder(nn.Module):
    """A 7x7 convolution, 4x4 convolutions of stride 2, residual blocks, all instance-normalised.

    The norm removes means and deviations of features, which carry the style of an image.

    Source: Huang, Liu, Belongie & Kautz 2018, "Multimodal unsupervised image-to-image translation",
    section 5.1 and appendix B, whose sizes for images of 256 pixels are the default.

    Attributes:
      channels: Channels of each convolution; all but the first halve height and width, rounded up.
      num_blocks: Number of residual blocks.
      dtype: Type to compute in; the maps are float32 or wider.
    """

    channels: Sequence[int] = (64, 128, 256)
    num_blocks: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, values: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch map_height map_width content"]:
        """Maps images with values from -1 to 1 to maps of content."""
        x = values.astype(self.dtype)
        for level, channels in enumerate(self.channels):
            x = Conv(
                channels,
                (4, 4) if level else (7, 7),
                (2, 2) if level else (1, 1),
                padding="REFLECT",
                use_bias=False,  # the norm subtracts it
                dtype=self.dtype,
                kernel_init=nn.initializers.he_normal(),
            )(x)
            x = relu(instance_norm(x))
        for _ in range(self.num_blocks):
            x = InstanceNormBlock(self.dtype)(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class StyleEncoder(nn.Module):
    """A 7x7 convolution, 4x4 convolutions of stride 2, and the mean over all positions; no norms.

    It is the network of an `Encoder`, whose posterior head maps the features to styles.

    Source: Huang, Liu, Belongie & Kautz 2018, "Multimodal unsupervised image-to-image translation",
    section 5.1 and appendix B, whose sizes for images of 256 pixels are the default.

    Attributes:
      channels: Channels of each convolution; all but the first halve height and width, rounded up.
      dtype: Type to compute in; the features are float32 or wider.
    """

    channels: Sequence[int] = (64, 128, 256, 256, 256)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, values: Float[Array, "batch height width channel"], *, context: None = None
    ) -> Float[Array, "batch feature"]:
        """Maps images with values from -1 to 1 to features; there is no context."""
        x = values.astype(self.dtype)
        for level, channels in enumerate(self.channels):
            x = Conv(
                channels,
                (4, 4) if level else (7, 7),
                (2, 2) if level else (1, 1),
                padding="REFLECT",
                dtype=self.dtype,
                kernel_init=nn.initializers.he_normal(),
            )(x)
            x = relu(x)
        return jnp.mean(x.astype(jnp.promote_types(x.dtype, jnp.float32)), axis=(1, 2))
