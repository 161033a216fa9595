"""Residual and gated blocks of convolutions."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.nn.activation import relu
from vaeflow.nn.convolution import Conv


class ResidualBlock(nn.Module):
    """Adds a small network to its input: x + conv1x1(relu(conv3x3(relu(x)))).

    The last convolution starts at zero, so the block starts as the identity.

    Source: He, Zhang, Ren & Sun 2016, "Identity mappings in deep residual networks" (activation
    before each layer).

    Attributes:
      hidden: Number of channels between the two convolutions; that of the input where None.
      dtype: Type to compute in.
    """

    hidden: int | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channel"]) -> Array:
        """Keeps the shape ``[batch, height, width, channel]``."""
        channels = x.shape[-1]
        hidden = Conv(self.hidden or channels, (3, 3), dtype=self.dtype)(relu(x))
        zeros = nn.initializers.zeros
        return x + Conv(channels, (1, 1), dtype=self.dtype, kernel_init=zeros)(relu(hidden))


class GatedConv(nn.Module):
    """A convolution multiplied by a sigmoid gate: (x * W + b) sigmoid(x * V + c).

    Source: Dauphin, Fan, Auli & Grangier 2017, "Language modeling with gated convolutional
    networks", equation 1; used by van den Berg et al. 2018 in their encoders and decoders.

    Attributes:
      features: Number of output channels.
      kernel_size: Height and width of the kernel.
      strides: Vertical and horizontal stride.
      padding: As in `Conv`.
      dtype: Type to compute in.
    """

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    padding: Any = "SAME"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channel"]) -> Array:
        """Maps ``[batch, height, width, channel]`` to ``[batch, height, width, feature]``."""
        both = Conv(
            2 * self.features, self.kernel_size, self.strides, self.padding, dtype=self.dtype
        )(x)
        values, gates = jnp.split(both, 2, axis=-1)
        return values * jax.nn.sigmoid(gates)
