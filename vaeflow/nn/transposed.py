"""Transposed convolutions, which double height and width."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.nn.convolution import Conv
from vaeflow.nn.phases import depth_to_space, doubled_size


class TransposedConv(nn.Module):
    """A 4x4 convolution of stride 2, transposed.

    Rows 2i - 1 and 2i of the result see rows i - 1 and i of the input, likewise columns: so it is a
    2x2 convolution to four times the features, one quarter for each pixel of a 2x2 square. As the
    stride divides the size of the kernel, all pixels see equally many of the input.

    Attributes:
      features: Number of output channels.
      dtype: Type to compute in.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"], size: tuple[int, int] | None = None
    ) -> Float[Array, "batch out_height out_width feature"]:
        """Maps ``[batch, height, width, channel]`` to twice the height and width.

        Args:
          x: Images.
          size: Height and width to keep, at most twice those of x, or None for all.

        Raises:
          ValueError: If the size is larger.
        """
        height, width = doubled_size(x.shape, size)
        squares = Conv(4 * self.features, (2, 2), padding=((1, 1), (1, 1)), dtype=self.dtype)(x)
        return depth_to_space(squares)[:, 1 : 1 + height, 1 : 1 + width]
