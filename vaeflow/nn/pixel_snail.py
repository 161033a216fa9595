"""PixelSNAIL (Chen et al. 2018): causal convolutions and causal attention, over maps of codes."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.nn.autoregressive_map import AutoregressiveMapNetwork
from vaeflow.nn.causal import CausalAttention, CausalConv, Position
from vaeflow.nn.convolution import Conv

PyTree = Any


class CausalResidualBlock(nn.Module):
    """A gated residual block of causal convolutions: x + a sigmoid(b).

    (a, b) = W_2 * elu(W_1 * elu(x) + c), where c is a conditioning term and W_2 is initially zero.

    Source: Chen, Mishra, Rohaninejad & Abbeel 2018, "PixelSNAIL: an improved autoregressive
    generative model", section 3, and their published code.

    Attributes:
      channels: Number of channels.
      kernel_size: Rows and columns, up to the position, that both convolutions read.
      dropout: As in `AutoregressiveMapNetwork`, of the channels between them.
      dtype: Type to compute in.
    """

    channels: int
    _: dataclasses.KW_ONLY
    kernel_size: tuple[int, int] = (2, 2)
    dropout: float = 0.0
    dtype: Any = jnp.float32

    def setup(self):
        """Creates the layers."""
        self.first = CausalConv(self.channels, self.kernel_size, dtype=self.dtype)
        zeros = nn.initializers.zeros
        self.second = CausalConv(
            2 * self.channels, self.kernel_size, dtype=self.dtype, kernel_init=zeros
        )
        self.dropped = nn.Dropout(self.dropout)

    def __call__(
        self,
        x: Float[Array, "batch rows columns channel"],
        condition: Array,
        caches: tuple[Array, Array] | tuple[None, None] = (None, None),
        at: Position = (0, 0),
    ) -> tuple[Array, tuple[Array, Array] | tuple[None, None]]:
        """Maps ``[batch, rows, columns, channel]`` to itself; returns the caches as well."""
        hidden, first = self.first(nn.elu(x), caches[0], at)
        hidden = self.dropped(nn.elu(hidden + condition), deterministic=not self.has_rng("dropout"))
        y, second = self.second(hidden, caches[1], at)
        values, gates = jnp.split(y, 2, axis=-1)
        return x + values * nn.sigmoid(gates), (first, second)

    def empty_caches(self, batch: int, shape: tuple[int, int]) -> tuple[Array, Array]:
        """Returns the caches of both convolutions."""
        return tuple(
            layer.empty_cache(batch, shape, self.channels) for layer in (self.first, self.second)
        )


class CausalAttentionBlock(nn.Module):
    """Causal residual blocks, then attention to the position and all before it.

    Queries are functions of the features x of a position and of its coordinates; keys and values of
    these and of the code before it. So a position reads every code before it, and its softmax is
    never empty.

    Source: Chen, Mishra, Rohaninejad & Abbeel 2018, section 3, where keys and values are functions
    of the code at the same position, and a position attends to those before it.

    Attributes:
      channels: Number of channels.
      num_residuals: Number of causal residual blocks.
      kernel_size: As in `CausalResidualBlock`.
      num_heads: Number of heads of the attention.
      dropout: As in `AutoregressiveMapNetwork`.
      dtype: Type to compute in.
    """

    channels: int
    _: dataclasses.KW_ONLY
    num_residuals: int = 4
    kernel_size: tuple[int, int] = (2, 2)
    num_heads: int = 8
    dropout: float = 0.0
    dtype: Any = jnp.float32

    def setup(self):
        """Creates the layers."""
        options = {"dropout": self.dropout, "dtype": self.dtype}
        self.residual = [
            CausalResidualBlock(self.channels, kernel_size=self.kernel_size, **options)
            for _ in range(self.num_residuals)
        ]
        self.projected = nn.Dense(self.num_residuals * self.channels, dtype=self.dtype)
        self.queries, self.content, self.found = (
            Conv(self.channels, (1, 1), dtype=self.dtype) for _ in range(3)
        )
        self.attention = CausalAttention(self.channels, num_heads=self.num_heads, dtype=self.dtype)
        self.merge = CausalResidualBlock(self.channels, kernel_size=(1, 1), **options)

    def conditions(self, context: Array | None) -> list[Array]:
        """Computes the conditioning term of each residual block."""
        if context is None:
            return [jnp.zeros((1, 1, 1, self.channels), self.dtype)] * self.num_residuals
        return jnp.split(self.projected(context), self.num_residuals, axis=-1)

    def __call__(
        self,
        x: Float[Array, "batch rows columns channel"],
        before: Float[Array, "batch rows columns channel"],
        coordinates: Float[Array, "batch rows columns 2"],
        conditions: list[Array],
        caches: PyTree,
        at: Position,
        start: Array | int,
    ) -> tuple[Array, PyTree]:
        """Maps ``[batch, rows, columns, channel]`` to itself.

        Args:
          x: Features.
          before: The vector of the code before each position.
          coordinates: Row and column of the positions, scaled.
          conditions: From `conditions`.
          caches: From the positions before, or None where these are all.
          at: Row and column at which the positions begin.
          start: The same in raster order.

        Returns:
          The features, and the updated caches.
        """
        block_caches, attention_cache = caches or ([(None, None)] * self.num_residuals, None)
        updated = []
        for block, condition, cache in zip(self.residual, conditions, block_caches, strict=True):
            x, cache = block(x, condition, cache, at)
            updated.append(cache)
        queries = nn.elu(self.queries(jnp.concatenate([x, coordinates], axis=-1)))
        content = nn.elu(self.content(jnp.concatenate([x, before, coordinates], axis=-1)))
        attended, attention_cache = self.attention(
            *(
                part.reshape(x.shape[0], x.shape[1] * x.shape[2], self.channels)
                for part in (queries, content)
            ),
            attention_cache,
            start,
        )
        x, _ = self.merge(x, self.found(nn.elu(attended.reshape(x.shape))))
        return x, (updated, attention_cache)

    def empty_caches(self, batch: int, shape: tuple[int, int]) -> PyTree:
        """Returns the caches of the residual blocks and of the attention."""
        block_caches = [block.empty_caches(batch, shape) for block in self.residual]
        return block_caches, self.attention.empty_cache(batch, shape[0] * shape[1])


class PixelSNAIL(AutoregressiveMapNetwork, kw_only=True):
    """Causal convolutions for short range, and causal attention for long range.

    There are `num_blocks` of `CausalAttentionBlock`. The first layer is the sum of a convolution of
    the row above, one column ahead, and of one of the codes on the left.

    Source: Chen, Mishra, Rohaninejad & Abbeel 2018, "PixelSNAIL: an improved autoregressive
    generative model", sections 2 and 3, for codes: logits of each in place of logistic mixtures.

    Attributes:
      num_residuals: Number of causal residual blocks before each attention.
      kernel_size: Rows and columns, up to the position, that they read.
      num_heads: Number of heads of each attention, a divisor of the channels.
    """

    num_residuals: int = 4
    kernel_size: tuple[int, int] = (2, 2)
    num_heads: int = 8

    def setup(self):
        """Creates the layers."""
        super().setup()
        self.above = CausalConv(self.channels, (1, 3), 1, self.dtype)
        self.left = CausalConv(self.channels, (2, 1), dtype=self.dtype)
        self.stack = [
            CausalAttentionBlock(
                self.channels,
                num_residuals=self.num_residuals,
                kernel_size=self.kernel_size,
                num_heads=self.num_heads,
                dropout=self.dropout,
                dtype=self.dtype,
            )
            for _ in range(self.num_blocks)
        ]

    def conditions_of_blocks(self, context):
        """Computes the conditioning terms of the residual blocks of each block."""
        return [block.conditions(context) for block in self.stack]

    def rows(self, above, conditions, caches=None, at=(0, 0)):
        """Computes the first layer's convolution of the row above."""
        del conditions
        return self.above(above, caches, at)

    def positions(self, before, rows, conditions, caches=None, at=(0, 0)):
        """Computes all other layers, and the logits."""
        left_cache, block_caches = caches or (None, [None] * self.num_blocks)
        on_left, left_cache = self.left(self.left_of(before, at), left_cache, at)
        x, updated = rows + on_left, []
        coordinates = self._coordinates(x.shape, at)
        start = at[0] * self.map_shape[1] + at[1]
        for block, terms, cache in zip(self.stack, conditions, block_caches, strict=True):
            x, cache = block(x, before, coordinates, terms, cache, at, start)
            updated.append(cache)
        return self.logits(x, nn.elu), (left_cache, updated)

    def empty_caches(self, batch):
        """Returns the caches of the first layer, and of each block."""
        block_caches = [block.empty_caches(batch, self.map_shape) for block in self.stack]
        left_cache = self.left.empty_cache(batch, self.map_shape, self.channels)
        above_cache = self.above.empty_cache(batch, self.map_shape, self.channels)
        return above_cache, (left_cache, block_caches)

    def _coordinates(
        self, shape: tuple[int, ...], at: Position
    ) -> Float[Array, "batch rows columns 2"]:
        """Rows and columns, scaled to numbers from -1/2 to 1/2."""
        steps = [
            (start + jnp.arange(count)) / size - 0.5
            for start, count, size in zip(at, shape[1:3], self.map_shape, strict=True)
        ]
        coordinates = jnp.stack(jnp.meshgrid(*steps, indexing="ij"), axis=-1)
        return jnp.broadcast_to(coordinates.astype(self.dtype), (*shape[:3], 2))
