"""Convolutions that read no position after their own, of a whole map or of one piece at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.nn.convolution import Conv, default_kernel_init

Place = tuple[Array | int, Array | int]
"""Row and column at which a piece of a map begins."""


class CausalConv(nn.Module):
    """A convolution of the rows up to a position's own and of the columns up to its own.

    With a kernel of r rows and c columns, position (i, j) reads rows i - r + 1 to i and columns
    j + a - c + 1 to j + a, where a is `ahead`; beyond the map there are zeros. Where a is above 0
    it reads positions that follow its own in raster order: such a layer is causal where its input
    at row i tells of the rows above alone.

    A map may come in pieces, which are rows, or single positions in raster order: a cache then
    remembers the pieces before, and each costs what it costs of the whole.

    Source: van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves & Kavukcuoglu 2016, "Conditional
    image generation with PixelCNN decoders", section 2.2; in pieces, Ramachandran et al. 2017,
    "Fast generation for convolutional autoregressive models".

    Attributes:
      features: Number of output channels.
      kernel_size: Rows and columns of the kernel.
      ahead: Number of columns after a position's own that it reads.
      dtype: Type to compute in.
      kernel_init: Initialiser of the kernel.
    """

    features: int
    kernel_size: tuple[int, int]
    ahead: int = 0
    dtype: Any = jnp.float32
    kernel_init: Callable[..., Array] = default_kernel_init

    def setup(self):
        """Makes the layers."""
        self.conv = Conv(
            self.features,
            self.kernel_size,
            padding="VALID",
            dtype=self.dtype,
            kernel_init=self.kernel_init,
        )

    def __call__(
        self,
        x: Float[Array, "batch rows columns channel"],
        cache: Float[Array, "batch *padded channel"] | None = None,
        at: Place = (0, 0),
    ) -> tuple[Float[Array, "batch rows columns feature"], Array | None]:
        """Convolves a map, or a piece of one.

        Args:
          x: The whole map, or the piece that follows those in the cache.
          cache: From `empty_cache` or the piece before; None where x is the whole map.
          at: Where the piece begins.

        Returns:
          The features at the positions of x, and the cache with x in it, or None.
        """
        before, after = self._margins
        if cache is None:
            return self.conv(jnp.pad(x, ((0, 0), (before[0], 0), (before[1], after), (0, 0)))), None
        row, column = at
        cache = jax.lax.dynamic_update_slice(
            cache, x.astype(cache.dtype), (0, row + before[0], column + before[1], 0)
        )
        batch, rows, columns, channels = x.shape
        read = (batch, rows + before[0], columns + before[1] + after, channels)
        return self.conv(jax.lax.dynamic_slice(cache, (0, row, column, 0), read)), cache

    @nn.nowrap
    def empty_cache(
        self, batch: int, shape: tuple[int, int], channels: int
    ) -> Float[Array, "batch padded_height padded_width channel"]:
        """A cache of no piece of maps of `shape`: the zeros beyond the map, and room for it."""
        before, after = self._margins
        height, width = shape[0] + before[0], shape[1] + before[1] + after
        return jnp.zeros((batch, height, width, channels), self.dtype)

    @property
    def _margins(self) -> tuple[tuple[int, int], int]:
        """Rows and columns read before a position, and columns after it."""
        rows, columns = self.kernel_size
        return (rows - 1, columns - 1 - self.ahead), self.ahead
