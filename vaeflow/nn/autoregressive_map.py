"""Autoregressive networks over maps of codes in raster order: base class, and upsampled context.

`AutoregressiveMapNetwork` computes the logits of whole maps at once, and samples them position by
position with caches.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vaeflow.nn.blocks import ResidualBlock
from vaeflow.nn.causal import Position
from vaeflow.nn.convolution import Conv, relu

PyTree = Any


class UpsampledConditioner(nn.Module):
    """A residual network over the map of the level above, upsampled to the size of the map below.

    Position (i, j) of the map below receives the features of position (i h' // h, j w' // w).

    Source: Razavi, van den Oord & Vinyals 2019, "Generating diverse high-fidelity images with
    VQ-VAE-2", section 3.2 (a residual network, as conditioning of the bottom prior on the top).

    Attributes:
      map_shape: Height h and width w of the map below.
      num_codes: Number of codes where the map above holds codes; None where it holds features.
      channels: Number of features.
      num_blocks: Number of residual blocks.
      dtype: Type to compute in.
    """

    map_shape: tuple[int, int]
    _: dataclasses.KW_ONLY
    num_codes: int | None = None
    channels: int = 64
    num_blocks: int = 2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, above: Array) -> Array:
        """Maps the level above to ``[*batch, h, w, channels]``.

        Args:
          above: Codes ``[*batch, h', w']``, or features ``[*batch, h', w', channel]``.

        Raises:
          ValueError: If these aren't codes where `num_codes` is given and features where it isn't,
            or have too few axes.
        """
        integer = jnp.issubdtype(above.dtype, jnp.integer)
        event_ndims = 3 if self.num_codes is None else 2
        if integer != (self.num_codes is not None) or above.ndim < event_ndims:
            expected = "[*batch, height, width" + (", channel]" if self.num_codes is None else "]")
            kind = "features" if self.num_codes is None else "codes"
            raise ValueError(
                f"above must hold {kind} {expected} for num_codes={self.num_codes}, "
                f"got {above.dtype} of shape {above.shape}"
            )
        batch = above.shape[: above.ndim - event_ndims]
        x = above.reshape((math.prod(batch), *above.shape[len(batch) :]))
        if self.num_codes is not None:
            vectors = nn.Embed(
                self.num_codes, self.channels, embedding_init=nn.initializers.normal(1.0)
            )
            x = vectors(jnp.clip(x, 0, self.num_codes - 1))
        x = Conv(self.channels, (3, 3), dtype=self.dtype)(x)
        for _ in range(self.num_blocks):
            x = ResidualBlock(dtype=self.dtype)(x)
        x = resize_nearest(relu(x), self.map_shape)
        return x.reshape((*batch, *x.shape[1:]))


def resize_nearest(
    x: Float[Array, "*batch height width channel"], size: tuple[int, int]
) -> Float[Array, "*batch out_height out_width channel"]:
    """Resizes h' x w' maps to h x w: position (i, j) is that at (i h' // h, j w' // w) before."""
    for axis, length in zip((-3, -2), size, strict=True):
        x = jnp.take(x, jnp.arange(length) * x.shape[axis] // length, axis=axis)
    return x


class AutoregressiveMapNetwork(nn.Module):
    """Base class of networks from maps of codes to the logits of each code given those before.

    Positions are in raster order: row by row, each from left to right. A subclass computes logits
    in two stages: `rows`, features of the rows above, and `positions`, which reads all codes
    before. Each takes either whole maps or a part of them, and then caches of the inputs of its
    layers in the parts before; parameters are the same.

    A learned offset of each position is added to its logits. The rest is initially zero, and the
    offset is zero or, after `start_at_frequencies`, the log frequencies of the codes in data.

    Attributes:
      map_shape: Height and width of a map.
      num_codes: Number K of codes: they are 0, ..., K - 1.
      channels: Number of channels of the hidden layers.
      num_blocks: Number of blocks of layers.
      dropout: Probability of dropping a channel of a block, where `apply` is given an rng named
        "dropout".
      dtype: Type to compute in; logits are float32 or wider.
    """

    map_shape: tuple[int, int]
    _: dataclasses.KW_ONLY
    num_codes: int
    channels: int = 128
    num_blocks: int = 5
    dropout: float = 0.0
    dtype: Any = jnp.float32

    def setup(self):
        """Creates the layers."""
        self.embedding = nn.Embed(
            self.num_codes,
            self.channels,
            dtype=self.dtype,
            # Variance one, as the initialisers of the next layers assume.
            embedding_init=nn.initializers.normal(1.0),
        )
        self.hidden = Conv(self.channels, (1, 1), dtype=self.dtype)
        self.offset = self.param(
            "offset", nn.initializers.zeros, (*self.map_shape, self.num_codes), jnp.float32
        )
        self.outputs = Conv(
            self.num_codes, (1, 1), dtype=self.dtype, kernel_init=nn.initializers.zeros
        )

    def __call__(
        self,
        maps: Int[Array, "batch height width"],
        context: Float[Array, "batch *positions feature"] | None = None,
    ) -> Float[Array, "batch height width code"]:
        """Computes the logits of every position given the codes before it.

        Args:
          maps: Codes; those out of range are clipped to it.
          context: Vectors, or one for each position, or None.

        Raises:
          ValueError: If the maps or the context have another height and width, or the maps aren't
            made of integers.
        """
        self._check_maps(maps)
        return self.from_embedded(self.embed(maps), context)

    def _check_maps(self, maps: Array) -> None:
        if not jnp.issubdtype(maps.dtype, jnp.integer):
            raise ValueError(f"codes must be integers, got {maps.dtype} of shape {maps.shape}")
        if maps.ndim != 3 or maps.shape[1:] != tuple(self.map_shape):
            raise ValueError(
                f"maps must have shape (batch, {self.map_shape[0]}, {self.map_shape[1]}), "
                f"got {maps.shape}"
            )

    def start_at_frequencies(self, maps: Int[Array, "batch height width"]) -> None:
        """Sets the offset to log((n + 1/2) / (N + K/2)), where n of N maps have the code there.

        To be called in `init` only. Codes out of range aren't counted.

        Raises:
          ValueError: As a call, of the maps.
        """
        self._check_maps(maps)
        height, width = self.map_shape
        positions = jnp.arange(height)[:, None], jnp.arange(width)
        counts = jnp.full((*self.map_shape, self.num_codes), 0.5, jnp.float32)
        counts = counts.at[(*positions, jnp.where(maps < 0, self.num_codes, maps))].add(
            1.0, mode="drop"
        )
        total = maps.shape[0] + 0.5 * self.num_codes
        self.put_variable("params", "offset", jnp.log(counts / total))

    def embed(self, maps: Int[Array, "*positions"]) -> Float[Array, "*positions channel"]:
        """Returns the embedding vector of each code."""
        return self.embedding(jnp.clip(maps, 0, self.num_codes - 1))

    def from_embedded(
        self,
        x: Float[Array, "batch height width channel"],
        context: Float[Array, "batch *positions feature"] | None = None,
    ) -> Float[Array, "batch height width code"]:
        """Computes logits from the embedding vectors of the codes."""
        conditions = self.conditions(context)
        above = jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]
        sequence = x.reshape(x.shape[0], x.shape[1] * x.shape[2], x.shape[-1])
        before = jnp.pad(sequence, ((0, 0), (1, 0), (0, 0)))[:, :-1].reshape(x.shape)
        rows, _ = self.rows(above, conditions)
        return self.positions(before, rows, conditions)[0] + self.offset

    def conditions(self, context: Float[Array, "batch *positions feature"] | None) -> PyTree:
        """Computes the terms that each block adds given the context.

        They are ``[batch, height, width, feature]``; vectors give maps of height and width 1, which
        broadcast.

        Raises:
          ValueError: If the context has another height and width than the maps.
        """
        if context is not None and context.ndim == 2:
            context = context[:, None, None]
        elif context is not None and (
            context.ndim != 4 or context.shape[1:3] != tuple(self.map_shape)
        ):
            raise ValueError(
                "context must have shape (batch, feature) or (batch, "
                f"{self.map_shape[0]}, {self.map_shape[1]}, feature), got {context.shape}"
            )
        return self.conditions_of_blocks(context)

    def context_features(self) -> int | None:
        """Number of features of the context that parameters were made for; 0 for none.

        None without variables.
        """
        for part in jax.tree_util.tree_leaves_with_path(self.variables.get("params", {})):
            names = [key.key for key in part[0]]
            if names[-2:] == ["projected", "kernel"]:
                return part[1].shape[0]
        return 0

    def conditions_of_blocks(
        self, context: Float[Array, "batch height_or_1 width_or_1 feature"] | None
    ) -> PyTree:
        """Computes the terms of each block, at the positions of the context; at one without."""
        raise NotImplementedError

    def rows(
        self,
        above: Float[Array, "batch rows width channel"],
        conditions: PyTree,
        caches: PyTree = None,
        at: Position = (0, 0),
    ) -> tuple[PyTree, PyTree]:
        """Computes features of the rows above each row.

        Args:
          above: For each row, the vectors of the row above; zeros for the first.
          conditions: From `conditions`, of the same rows.
          caches: From the rows before, or None where these are all.
          at: Position at which the rows begin.

        Returns:
          A pytree of ``[batch, rows, width, feature]``, and the updated caches.
        """
        raise NotImplementedError

    def positions(
        self,
        before: Float[Array, "batch rows columns channel"],
        rows: PyTree,
        conditions: PyTree,
        caches: PyTree = None,
        at: Position = (0, 0),
    ) -> tuple[Float[Array, "batch rows columns code"], PyTree]:
        """Computes logits.

        Args:
          before: For each position, the vector of the one before, which is the last of the row
            above at the start of a row; zeros for the first of all.
          rows: From `rows`, of the same positions.
          conditions: From `conditions`, of the same positions.
          caches: From the positions before, or None where these are all.
          at: Position at which these begin.

        Returns:
          The logits, and the updated caches.
        """
        raise NotImplementedError

    def empty_caches(self, batch: int) -> tuple[PyTree, PyTree]:
        """Returns the caches of `rows` and of `positions` before the first."""
        raise NotImplementedError

    def left_of(self, before: Array, at: Position) -> Array:
        """Returns the vectors on the left: those before, with zeros in the first column."""
        columns = at[1] + jnp.arange(before.shape[2])
        return jnp.where(columns[:, None] > 0, before, 0)

    def logits(
        self, x: Float[Array, "batch rows columns channel"], activation: Callable[[Array], Array]
    ) -> Float[Array, "batch rows columns code"]:
        """Computes logits from the last block's features, for each position on its own."""
        logits = self.outputs(activation(self.hidden(activation(x))))
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))

    def row_of_codes(
        self,
        codes: Int[Array, "batch width"],
        conditions: PyTree,
        caches: PyTree,
        row: Array,
    ) -> tuple[PyTree, PyTree]:
        """Computes `rows` of one row, given the codes of the row above, which row 0 ignores."""
        above = jnp.where(row > 0, self.embed(codes)[:, None], 0)
        conditions = _slice(conditions, (row, 0), (1, self.map_shape[1]))
        return self.rows(above, conditions, caches, (row, 0))

    def position_of_code(
        self,
        code: Int[Array, " batch"],
        rows: PyTree,
        conditions: PyTree,
        caches: PyTree,
        at: Position,
    ) -> tuple[Float[Array, "batch code"], PyTree]:
        """Computes the logits of one position, given the code before, which the first ignores."""
        first = (at[0] == 0) & (at[1] == 0)
        before = jnp.where(first, 0, self.embed(code)[:, None, None])
        rows = _slice(rows, (0, at[1]), (1, 1))
        conditions = _slice(conditions, at, (1, 1))
        logits, caches = self.positions(before, rows, conditions, caches, at)
        return logits[:, 0, 0] + self.offset[at], caches

    @nn.nowrap
    def solve(
        self,
        variables: dict[str, Any],
        context: Float[Array, "batch *positions feature"] | None,
        solve_one: Callable[[Float[Array, "batch code"], PyTree], tuple[Array, PyTree]],
        inputs: PyTree,
        batch: int,
    ) -> PyTree:
        """Solves code_p = solve_one(logits of p given the codes before, inputs_p), p by p.

        All positions together cost about one pass over whole maps, except that attention reads the
        cache of all positions at each.

        Args:
          variables: The module's variables.
          context: Vectors, or one for each position, or None.
          solve_one: Computes the codes ``[batch]`` of a position, and a result, from its logits.
          inputs: Pytree of arrays whose first axes are height and width.
          batch: Number of maps.

        Returns:
          The results, stacked along two new first axes, height and width.
        """
        height, width = self.map_shape
        conditions = self.apply(variables, context, method="conditions")

        def row(carry, slices):
            (row_caches, position_caches), codes = carry
            index, row_inputs = slices
            rows, row_caches = self.apply(
                variables, codes, conditions, row_caches, index, method="row_of_codes"
            )

            def position(carry, slices):
                caches, code = carry
                column, position_inputs = slices
                logits, caches = self.apply(
                    variables,
                    code,
                    rows,
                    conditions,
                    caches,
                    (index, column),
                    method="position_of_code",
                )
                code, result = solve_one(logits, position_inputs)
                code = code.astype(jnp.int32)
                return (caches, code), (code, result)

            (position_caches, _), (codes, results) = jax.lax.scan(
                position, (position_caches, codes[:, -1]), (jnp.arange(width), row_inputs)
            )
            return ((row_caches, position_caches), codes.T), results

        caches = self.apply(variables, batch, method="empty_caches")
        start = (caches, jnp.zeros((batch, width), jnp.int32))
        return jax.lax.scan(row, start, (jnp.arange(height), inputs))[1]


def _slice(maps: PyTree, at: Position, size: tuple[int, int]) -> PyTree:
    """Slices the same part of all maps, except those of a single position, which broadcast."""

    def slice_leaf(leaf: Array) -> Array:
        if leaf.shape[1:3] == (1, 1):
            return leaf
        sizes = (leaf.shape[0], *size, leaf.shape[3])
        return jax.lax.dynamic_slice(leaf, (0, *at, 0), sizes)

    return jax.tree.map(slice_leaf, maps)
