"""PixelSNAIL: causal convolutions and causal attention."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.nn.autoregressive_map import AutoregressiveMapNetwork
from vaeflow.nn.causal import CausalAttention, CausalConv, Place
from vaeflow.nn.convolution import Conv

PyTree = Any


class CausalResidualBlock(nn.Module):
    """Adds a gated function of the positions up to one's own: x + a sigmoid(b).

    (a, b) = W_2 * elu(W_1 * elu(x) + c), where c is given by others and W_2 is zero at first.

    Source: Chen, Mishra, Rohaninejad & Abbeel 2018, "PixelSNAIL: an improved autoregressive
    generative model", section 3, and their published code.

    Attributes:
      channels: Number of channels.
      kernel_size: Rows and columns up to a position's own that both convolutions read.
      dropout: As in `AutoregressiveMapNetwork`, of the channels between the two.
      dtype: Type to compute in.
    """

    channels: int
    _: dataclasses.KW_ONLY
    kernel_size: tuple[int, int] = (2, 2)
    dropout: float = 0.0
    dtype: Any = jnp.float32

    def setup(self):
        """Makes the layers."""
        self.first = CausalConv(self.channels, self.kernel_size, dtype=self.dtype)
        zeros = nn.initializers.zeros
        self.second = CausalConv(
            2 * self.channels, self.kernel_size, dtype=self.dtype, kernel_init=zeros
        )
        self.dropped = nn.Dropout(self.dropout)

    def __call__(
        self,
        x: Float[Array, "batch rows columns channel"],
        given: Array,
        caches: tuple[Array, Array] | tuple[None, None] = (None, None),
        at: Place = (0, 0),
    ) -> tuple[Array, tuple[Array, Array] | tuple[None, None]]:
        """Maps ``[batch, rows, columns, channel]`` to itself; returns the caches as well."""
        hidden, first = self.first(nn.elu(x), caches[0], at)
        hidden = self.dropped(nn.elu(hidden + given), deterministic=not self.has_rng("dropout"))
        both, second = self.second(hidden, caches[1], at)
        values, gates = jnp.split(both, 2, axis=-1)
        return x + values * nn.sigmoid(gates), (first, second)

    def empty_caches(self, batch: int, shape: tuple[int, int]) -> tuple[Array, Array]:
        """Caches of both convolutions."""
        return tuple(
            layer.empty_cache(batch, shape, self.channels) for layer in (self.first, self.second)
        )


class CausalAttentionBlock(nn.Module):
    """Causal residual blocks, then attention to all positions up to one's own.

    Queries are functions of the features x of a position and of its place; keys and values of these
    and of the code before it. So a position reads every code before it, and never has none to read.

    Source: Chen, Mishra, Rohaninejad & Abbeel 2018, section 3, where contents are of a code and the
    features of its own position, and one reads those before.

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
        """Makes the layers."""
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
        """Computes what each residual block is given of the context."""
        if context is None:
            return [jnp.zeros((1, 1, 1, self.channels), self.dtype)] * self.num_residuals
        return jnp.split(self.projected(context), self.num_residuals, axis=-1)

    def __call__(
        self,
        x: Float[Array, "batch rows columns channel"],
        before: Float[Array, "batch rows columns channel"],
        place: Float[Array, "batch rows columns 2"],
        conditions: list[Array],
        caches: PyTree,
        at: Place,
        start: Array | int,
    ) -> tuple[Array, PyTree]:
        """Maps ``[batch, rows, columns, channel]`` to itself.

        Args:
          x: Features.
          before: The vector of the code before each position.
          place: Where the positions are.
          conditions: From `conditions`.
          caches: From the positions before, or None where these are all.
          at: Where the positions begin, as row and column.
          start: The same in raster order.

        Returns:
          The features, and the caches.
        """
        of_blocks, of_attention = caches or ([(None, None)] * self.num_residuals, None)
        after = []
        for block, given, cache in zip(self.residual, conditions, of_blocks, strict=True):
            x, cache = block(x, given, cache, at)
            after.append(cache)
        queries = nn.elu(self.queries(jnp.concatenate([x, place], axis=-1)))
        content = nn.elu(self.content(jnp.concatenate([x, before, place], axis=-1)))
        found, of_attention = self.attention(
            *(part.reshape(x.shape[0], -1, self.channels) for part in (queries, content)),
            of_attention,
            start,
        )
        x, _ = self.merge(x, self.found(nn.elu(found.reshape(x.shape))))
        return x, (after, of_attention)

    def empty_caches(self, batch: int, shape: tuple[int, int]) -> PyTree:
        """Caches of the residual blocks and of the attention."""
        of_blocks = [block.empty_caches(batch, shape) for block in self.residual]
        return of_blocks, self.attention.empty_cache(batch, shape[0] * shape[1])


class PixelSNAIL(AutoregressiveMapNetwork, kw_only=True):
    """Causal convolutions for what is near, and causal attention for what is far.

    See `CausalAttentionBlock`, of which there are `num_blocks`. The first layer adds what a convolution
    reads of the row above, one column ahead, to what another reads on the left.

    Source: Chen, Mishra, Rohaninejad & Abbeel 2018, "PixelSNAIL: an improved autoregressive
    generative model", sections 2 and 3, for codes: logits of each in place of logistic mixtures.

    Attributes:
      num_residuals: Number of causal residual blocks before each attention.
      kernel_size: Rows and columns up to a position's own that they read.
      num_heads: Number of heads of each attention, which the channels must be a multiple of.
    """

    num_residuals: int = 4
    kernel_size: tuple[int, int] = (2, 2)
    num_heads: int = 8

    def setup(self):
        """Makes the layers."""
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
        """What the residual blocks of each block are given."""
        return [block.conditions(context) for block in self.stack]

    def rows(self, above, conditions, caches=None, at=(0, 0)):
        """What the first layer reads of the row above."""
        del conditions
        return self.above(above, caches, at)

    def positions(self, before, rows, conditions, caches=None, at=(0, 0)):
        """All else, and the logits."""
        of_left, of_blocks = caches or (None, [None] * self.num_blocks)
        on_left, of_left = self.left(self.left_of(before, at), of_left, at)
        x, after = rows + on_left, []
        place = self._place(x.shape, at)
        start = at[0] * self.map_shape[1] + at[1]
        for block, given, cache in zip(self.stack, conditions, of_blocks, strict=True):
            x, cache = block(x, before, place, given, cache, at, start)
            after.append(cache)
        return self.logits(x, nn.elu), (of_left, after)

    def empty_caches(self, batch):
        """Caches of the first layer, and of each block."""
        of_blocks = [block.empty_caches(batch, self.map_shape) for block in self.stack]
        of_left = self.left.empty_cache(batch, self.map_shape, self.channels)
        return self.above.empty_cache(batch, self.map_shape, self.channels), (of_left, of_blocks)

    def _place(self, shape: tuple[int, ...], at: Place) -> Float[Array, "batch rows columns 2"]:
        """Rows and columns as numbers from -1/2 to 1/2."""
        steps = [
            (start + jnp.arange(count)) / size - 0.5
            for start, count, size in zip(at, shape[1:3], self.map_shape, strict=True)
        ]
        place = jnp.stack(jnp.meshgrid(*steps, indexing="ij"), axis=-1)
        return jnp.broadcast_to(place.astype(self.dtype), (*shape[:3], 2))
