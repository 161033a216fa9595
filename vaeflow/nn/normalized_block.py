"""Residual blocks whose features are normalised image by image."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.nn.activation import relu
from vaeflow.nn.convolution import Conv
from vaeflow.nn.instance_norm import adaptive_instance_norm, instance_norm

MODULATIONS = 4
"""Numbers for each channel that modulate a block: deviations and means after two convolutions."""


class InstanceNormBlock(nn.Module):
    """Adds a small network to its input: x + norm(conv3x3(relu(norm(conv3x3(x))))).

    The norm is an instance norm; where the block is modulated, an adaptive one.

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
          modulation: Deviations less one and means of all features after the first convolution,
            then those after the second: `MODULATIONS` for each channel. None for deviations of one
            and means of zero.

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
            own = modulation.reshape(-1, MODULATIONS, channels)[:, 2 * position : 2 * position + 2]
            return adaptive_instance_norm(x, 1 + own[:, 0], own[:, 1])

        return x + convolved(relu(convolved(x, 0)), 1)
