"""Causal convolution and attention in raster order, with caches for incremental evaluation.

Sources: van den Oord et al. 2016 (PixelCNN), Vaswani et al. 2017 (attention), Ramachandran et al.
2017 (caches).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.nn.convolution import Conv, default_kernel_init

Position = tuple[Array | int, Array | int]
"""Row and column at which a part of a map begins."""


class CausalConv(nn.Module):
    """A convolution that reads the rows and the columns up to each position.

    With a kernel of r rows and c columns, position (i, j) reads rows i - r + 1 to i and columns
    j + a - c + 1 to j + a, where a is `ahead`; the map is padded with zeros. With a > 0 it reads
    positions that follow in raster order: such a layer is causal only if its input at row i depends
    on the rows above row i only.

    A map may be given in parts, which are rows, or single positions in raster order: a cache stores
    the parts before, and all parts together cost what the whole map does.

    Source: van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves & Kavukcuoglu 2016, "Conditional
    image generation with PixelCNN decoders", section 2.2; in parts, Ramachandran et al. 2017,
    "Fast generation for convolutional autoregressive models".

    Attributes:
      features: Number of output channels.
      kernel_size: Rows and columns of the kernel.
      ahead: Number of columns after the position that it reads.
      dtype: Type to compute in.
      kernel_init: Initialiser of the kernel.
    """

    features: int
    kernel_size: tuple[int, int]
    ahead: int = 0
    dtype: Any = jnp.float32
    kernel_init: Callable[..., Array] = default_kernel_init

    def setup(self):
        """Creates the layers."""
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
        at: Position = (0, 0),
    ) -> tuple[Float[Array, "batch rows columns feature"], Array | None]:
        """Convolves a map, or a part of one.

        Args:
          x: The whole map, or the part that follows those in the cache.
          cache: From `empty_cache` or the part before; None where x is the whole map.
          at: Position at which the part begins.

        Returns:
          The features at the positions of x, and the updated cache, or None.
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
        """Returns an empty cache for maps of `shape`, padding included."""
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
    """Causal multi-head attention: each position attends to itself and to those before it.

    The output of a head at position p is sum_(q <= p) w_pq v_q with
    w_p = softmax_q(k_q . u_p / sqrt(d)), where u_p is a linear function of the query input at p,
    and k_q and v_q of the content at q; a head has d dimensions.

    A sequence may be given in parts: a cache stores the keys and values of the parts before.

    Source: Vaswani et al. 2017, "Attention is all you need", section 3.2, masked as in their
    decoder.

    Attributes:
      features: Number of output channels, a multiple of `num_heads`.
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
        """Attends from the positions of a sequence, or of a part of one.

        Args:
          queries: Inputs of the queries, of the whole sequence, or of the part that follows those
            in the cache.
          content: Inputs of the keys and values at the same positions.
          cache: From `empty_cache` or the part before; None where this is the whole sequence.
          start: Position at which the part begins.

        Returns:
          The averages, and the updated cache, or None.

        Raises:
          ValueError: If `features` isn't a multiple of `num_heads`.
        """
        if self.features % self.num_heads:
            raise ValueError(
                "features must be a multiple of num_heads, got "
                f"{self.features} and {self.num_heads}"
            )

        def projected(x: Array, name: str) -> Array:
            x = nn.Dense(self.features, use_bias=False, dtype=self.dtype, name=name)(x)
            return x.reshape(*x.shape[:-1], self.num_heads, self.features // self.num_heads)

        query = projected(queries, "query")
        key, value = projected(content, "key"), projected(content, "value")
        if cache is not None:
            key, value = cache = tuple(
                jax.lax.dynamic_update_slice_in_dim(stored, part, start, 1)
                for stored, part in zip(cache, (key, value), strict=True)
            )
        positions = start + jnp.arange(query.shape[1])
        mask = jnp.arange(key.shape[1]) <= positions[:, None]
        averages = jax.nn.dot_product_attention(query, key, value, mask=mask[None, None])
        return averages.reshape(*queries.shape[:-1], self.features), cache

    @nn.nowrap
    def empty_cache(self, batch: int, positions: int) -> Cache:
        """Returns an empty cache for sequences of so many positions."""
        shape = (batch, positions, self.num_heads, self.features // self.num_heads)
        return jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype)
