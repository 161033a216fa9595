"""The gated PixelCNN of van den Oord et al. 2016, over maps of codes.

Two stacks of causal convolutions, vertical and horizontal, avoid its predecessor's blind spot.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.nn.autoregressive_map import AutoregressiveMapNetwork
from vaeflow.nn.causal import CausalConv, Position
from vaeflow.nn.convolution import Conv, relu


class GatedCausalBlock(nn.Module):
    """One gated layer of the vertical stack, of the rows above, and of the horizontal stack.

    With u = W_v * v over the rows up to the current one, the vertical stack becomes
    v' = gate(u + c_v), and the horizontal one
    h' = h + A gate(W_h * h + U u + c_h), where W_h * h reads the columns up to the position and
    gate(a, b) = tanh(a) sigmoid(b) splits the channels in halves. A is initially zero.

    Attributes:
      channels: Number of channels of each stack.
      kernel_size: Number of columns that the vertical stack reads, odd; it reads half as many rows,
        rounded up, and the horizontal one as many columns.
      dropout: As in `AutoregressiveMapNetwork`.
      dtype: Type to compute in.
    """

    channels: int
    _: dataclasses.KW_ONLY
    kernel_size: int = 3
    dropout: float = 0.0
    dtype: Any = jnp.float32

    def setup(self):
        """Creates the layers."""
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {self.kernel_size}")
        reach, features = self.kernel_size // 2, 2 * self.channels
        self.vertical = CausalConv(features, (reach + 1, self.kernel_size), reach, self.dtype)
        self.horizontal = CausalConv(features, (1, reach + 1), dtype=self.dtype)
        self.link = Conv(features, (1, 1), dtype=self.dtype)
        zeros = nn.initializers.zeros
        self.residual = Conv(self.channels, (1, 1), dtype=self.dtype, kernel_init=zeros)
        self.projected = nn.Dense(2 * features, dtype=self.dtype)
        self.dropped = nn.Dropout(self.dropout)

    def conditions(self, context: Array | None) -> list[Array]:
        """Computes the terms c_v and c_h of the gates given the context."""
        if context is None:
            return [jnp.zeros((1, 1, 1, 2 * self.channels), self.dtype)] * 2
        return jnp.split(self.projected(context), 2, axis=-1)

    def rows(
        self,
        v: Float[Array, "batch rows width channel"],
        condition: Array,
        cache: Array | None = None,
        at: Position = (0, 0),
    ) -> tuple[Array, Array, Array | None]:
        """Computes v', then U u for the horizontal stack, then the cache."""
        sums, cache = self.vertical(v, cache, at)
        return self._gated(sums + condition), self.link(sums), cache

    def positions(
        self,
        h: Float[Array, "batch rows columns channel"],
        link: Array,
        condition: Array,
        cache: Array | None = None,
        at: Position = (0, 0),
    ) -> tuple[Array, Array | None]:
        """Computes h' and the cache."""
        sums, cache = self.horizontal(h, cache, at)
        return h + self.residual(self._gated(sums + link + condition)), cache

    def empty_caches(self, batch: int, shape: tuple[int, int]) -> tuple[Array, Array]:
        """Returns the caches of the vertical and of the horizontal stack."""
        return (
            self.vertical.empty_cache(batch, shape, self.channels),
            self.horizontal.empty_cache(batch, shape, self.channels),
        )

    def _gated(self, sums: Array) -> Array:
        values, gates = jnp.split(sums, 2, axis=-1)
        gated = jnp.tanh(values) * jax.nn.sigmoid(gates)
        return self.dropped(gated, deterministic=not self.has_rng("dropout"))


class GatedPixelCNN(AutoregressiveMapNetwork, kw_only=True):
    """Gated causal convolutions in two stacks, whose receptive field has no blind spot.

    A vertical stack reads the rows above, a horizontal one the codes of its row and the vertical
    stack; both are gated. See `GatedCausalBlock` for the formulas.

    The receptive field of a position is a rectangle, cut off behind the position. With `reach`
    R = num_blocks floor(kernel_size / 2) it holds the R + 1 codes on the left, and those of the
    R + 1 rows above from R columns on the left to R on the right. Codes beyond are taken to make no
    difference; every code before every position is read if R is at least width - 1, and at least
    height - 2. Five blocks of three columns reach all of a map of 7 rows and 6 columns; for larger
    maps, more blocks or wider kernels, or a `PixelSNAIL`, whose attention reads all codes before.

    Source: van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves & Kavukcuoglu 2016, "Conditional
    image generation with PixelCNN decoders", sections 2.1 to 2.3.

    Attributes:
      kernel_size: Number of columns that the vertical stack reads in a block, odd.
    """

    kernel_size: int = 3

    @property
    def reach(self) -> int:
        """Number R of columns to either side that a position reads of the rows above."""
        return self.num_blocks * (self.kernel_size // 2)

    def setup(self):
        """Creates the layers."""
        super().setup()
        self.stack = [
            GatedCausalBlock(
                self.channels,
                kernel_size=self.kernel_size,
                dropout=self.dropout,
                dtype=self.dtype,
            )
            for _ in range(self.num_blocks)
        ]

    def conditions_of_blocks(self, context):
        """Computes c_v and c_h of each block."""
        return [block.conditions(context) for block in self.stack]

    def rows(self, above, conditions, caches=None, at=(0, 0)):
        """Computes the vertical stack: the terms U u that each block adds to the horizontal one."""
        links, after = [], []
        for index, (block, (condition, _)) in enumerate(zip(self.stack, conditions, strict=True)):
            cache = None if caches is None else caches[index]
            above, link, cache = block.rows(above, condition, cache, at)
            links.append(link)
            after.append(cache)
        return links, after

    def positions(self, before, rows, conditions, caches=None, at=(0, 0)):
        """Computes the horizontal stack, and the logits."""
        h, after = self.left_of(before, at), []
        for index, (block, (_, condition)) in enumerate(zip(self.stack, conditions, strict=True)):
            cache = None if caches is None else caches[index]
            h, cache = block.positions(h, rows[index], condition, cache, at)
            after.append(cache)
        return self.logits(h, relu), after

    def empty_caches(self, batch):
        """Returns the caches of both stacks, block by block."""
        pairs = [block.empty_caches(batch, self.map_shape) for block in self.stack]
        return [first for first, _ in pairs], [second for _, second in pairs]
