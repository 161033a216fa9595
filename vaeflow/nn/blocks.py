"""Blocks of convolutional networks: residual, gated and instance-normalised; a ReLU.

Sources: He et al. 2016 (residual), Dauphin et al. 2017 (gated), Huang et al. 2018 (MUNIT).
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.nn.convolution import Conv, relu
from vaeflow.nn.normalization import adaptive_instance_norm, instance_norm


class ResidualBlock(nn.Module):
    """A pre-activation residual block: x + conv1x1(relu(conv3x3(relu(x)))).

    The last convolution is initially zero, so the block starts as the identity.

    Source: He, Zhang, Ren & Sun 2016, "Identity mappings in deep residual networks" (activation
    before each layer).

    Attributes:
      hidden_features: Number of channels between the two convolutions; None for that of the input.
      dtype: Type to compute in.
    """

    hidden_features: int | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channel"]) -> Array:
        """Keeps the shape ``[batch, height, width, channel]``."""
        channels = x.shape[-1]
        hidden = Conv(self.hidden_features or channels, (3, 3), dtype=self.dtype)(relu(x))
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
        y = Conv(2 * self.features, self.kernel_size, self.strides, self.padding, dtype=self.dtype)(
            x
        )
        values, gates = jnp.split(y, 2, axis=-1)
        return values * jax.nn.sigmoid(gates)


MODULATIONS = 4
"""Parameters for each channel that modulate a block: scales and shifts after two convolutions."""


class InstanceNormBlock(nn.Module):
    """A residual block with instance norms: x + norm(conv3x3(relu(norm(conv3x3(x))))).

    With a modulation the norms are adaptive instance norms.

    Source: Huang, Liu, Belongie & Kautz 2018, "Multimodal unsupervised image-to-image translation",
    appendix B.

    Attributes:
      dtype: Type to compute in.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channel"],
        modulation: Float[Array, "batch number"] | None = None,
    ) -> Float[Array, "batch height width channel"]:
        """Keeps the shape.

        Args:
          x: Maps of features.
          modulation: Scales less one and shifts of all features after the first convolution, then
            those after the second: `MODULATIONS` for each channel. None for scales of one and
            shifts of zero.

        Raises:
          ValueError: If the modulation is of another shape.
        """
        channels = x.shape[-1]
        if modulation is not None and modulation.shape != (
            x.shape[0],
            MODULATIONS * channels,
        ):
            raise ValueError(
                f"modulation must be of shape {(x.shape[0], MODULATIONS * channels)} for x of "
                f"shape {x.shape}, got {modulation.shape}"
            )

        def convolved(x: Array, position: int) -> Array:
            x = Conv(
                channels,
                (3, 3),
                padding="REFLECT",
                use_bias=False,  # the norm subtracts it
                dtype=self.dtype,
                kernel_init=nn.initializers.he_normal(),
            )(x)
            if modulation is None:
                return instance_norm(x)
            params = modulation.reshape(-1, MODULATIONS, channels)
            scale, shift = 1 + params[:, 2 * position], params[:, 2 * position + 1]
            return adaptive_instance_norm(x, scale, shift)

        return x + convolved(relu(convolved(x, 0)), 1)
