"""Causal layers in raster order: masked convolution and attention."""

from __future__ import annotations

import dataclasses
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


Cache = tuple[Array, Array]


class CausalAttention(nn.Module):
    """Averages values of the positions up to one's own, weighted by how keys answer a query.

    Position p gets, of each head, sum_(q <= p) w_pq v_q with w_p = softmax_q(k_q . u_p / sqrt(d)),
    where u_p is a linear function of its query, and k_q and v_q of the content at q, each with d
    entries a head.

    A sequence may come in pieces: a cache then remembers the keys and values of those before.

    Source: Vaswani et al. 2017, "Attention is all you need", section 3.2, masked as in their
    decoder.

    Attributes:
      features: Number of output channels, a multiple of the heads.
      num_heads: Number of heads.
      dtype: Type to compute in; weights are float32 or wider.
    """

    features: int
    _: dataclasses.KW_ONLY
    num_heads: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "batch position query"],
        content: Float[Array, "batch position channel"],
        cache: Cache | None = None,
        start: Array | int = 0,
    ) -> tuple[Float[Array, "batch position feature"], Cache | None]:
        """Attends from the positions of a sequence, or of a piece of one.

        Args:
          queries: What asks at each position: of the whole sequence, or of the piece that follows
            those in the cache.
          content: What is there to be found at the same positions.
          cache: From `empty_cache` or the piece before; None where this is the whole sequence.
          start: Where the piece begins.

        Returns:
          The averages, and the cache with the piece in it, or None.

        Raises:
          ValueError: If the features aren't a multiple of the heads.
        """
        if self.features % self.num_heads:
            raise ValueError(
                f"features must be a multiple of the heads, got {self.features} and {self.num_heads}"
            )

        def projected(x: Array, name: str) -> Array:
            x = nn.Dense(self.features, use_bias=False, dtype=self.dtype, name=name)(x)
            return x.reshape(*x.shape[:-1], self.num_heads, -1)

        query = projected(queries, "query")
        key, value = projected(content, "key"), projected(content, "value")
        if cache is not None:
            key, value = cache = tuple(
                jax.lax.dynamic_update_slice_in_dim(whole, piece, start, 1)
                for whole, piece in zip(cache, (key, value), strict=True)
            )
        own = start + jnp.arange(query.shape[1])
        reads = jnp.arange(key.shape[1]) <= own[:, None]
        found = jax.nn.dot_product_attention(query, key, value, mask=reads[None, None])
        return found.reshape(*queries.shape[:-1], self.features), cache

    @nn.nowrap
    def empty_cache(self, batch: int, positions: int) -> Cache:
        """A cache of no piece of sequences of so many positions."""
        shape = (batch, positions, self.num_heads, self.features // self.num_heads)
        return jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype)
