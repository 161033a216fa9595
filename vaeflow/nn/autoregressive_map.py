"""Base class of raster-order autoregressive networks over maps of codes, with incremental sampling."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vaeflow.nn.blocks import ResidualBlock, relu
from vaeflow.nn.causal import Place
from vaeflow.nn.convolution import Conv


class UpsampledConditioner(nn.Module):
    """A residual stack over the map of the level above, then repeated up to the size below.

    Position (i, j) of the map below gets the features of position (i h' // h, j w' // w).

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
          ValueError: If these aren't codes where `num_codes` is given and features where it isn't, or
            have too few axes.
        """
        integer = jnp.issubdtype(above.dtype, jnp.integer)
        event_ndims = 3 if self.num_codes is None else 2
        if integer != (self.num_codes is not None) or above.ndim < event_ndims:
            expected = "[*batch, height, width" + (", channel]" if self.num_codes is None else "]")
            raise ValueError(
                f"above must hold {'features' if self.num_codes is None else 'codes'} {expected} for "
                f"codes={self.num_codes}, got {above.dtype} of shape {above.shape}"
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
    """Repeats the pixels of h' x w' maps to h x w: (i, j) is what was at (i h' // h, j w' // w)."""
    for axis, length in zip((-3, -2), size, strict=True):
        x = jnp.take(x, jnp.arange(length) * x.shape[axis] // length, axis=axis)
    return x


PyTree = Any


class AutoregressiveMapNetwork(nn.Module):
    """What networks over maps of codes share: from codes to logits, all at once or one by one.

    Positions are in raster order: row by row, each from left to right. A subclass computes logits
    in two stages, `rows`, of what the rows above tell, and `positions`, of all codes before. Each
    takes either whole maps or a piece of them, and then caches of what its layers have read in the
    pieces before: the layers are the same.

    An offset of each position is added to its logits, which at first are nothing else: zero, or of
    the frequencies that `start_at_frequencies` finds in data.

    Attributes:
      map_shape: Height and width of a map.
      num_codes: Number K of codes: they are 0, ..., K - 1.
      channels: Number of channels of the layers between.
      num_blocks: Number of blocks of layers.
      dropout: Share of the channels of each block that are dropped wherever `apply` is given an rng
        named "dropout".
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
        """Makes the layers."""
        self.embedding = nn.Embed(
            self.num_codes,
            self.channels,
            dtype=self.dtype,
            # Inputs of variance one, as initialisers of the layers that follow expect.
            embedding_init=nn.initializers.normal(1.0),
        )
        self.hidden = Conv(self.channels, (1, 1), dtype=self.dtype)
        self.offset = self.param("offset", nn.initializers.zeros, (*self.map_shape, self.num_codes))
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
          maps: Codes; any beyond the range counts as the nearest within.
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
                f"maps must have shape (batch, {self.map_shape[0]}, {self.map_shape[1]}), got {maps.shape}"
            )

    def start_at_frequencies(self, maps: Int[Array, "batch height width"]) -> None:
        """Makes the offset log((n + 1/2) / (N + K/2)), n of N maps having a code at a position.

        To be called in `init` alone. Codes beyond the range count nowhere.

        Raises:
          ValueError: As a call, of the maps.
        """
        self._check_maps(maps)
        height, width = self.map_shape
        places = jnp.arange(height)[:, None], jnp.arange(width)
        counts = jnp.full((*self.map_shape, self.num_codes), 0.5)
        counts = counts.at[(*places, jnp.where(maps < 0, self.num_codes, maps))].add(
            1.0, mode="drop"
        )
        total = maps.shape[0] + 0.5 * self.num_codes
        self.put_variable("params", "offset", jnp.log(counts / total))

    def embed(self, maps: Int[Array, "*positions"]) -> Float[Array, "*positions channel"]:
        """Looks up the vector of each code."""
        return self.embedding(jnp.clip(maps, 0, self.num_codes - 1))

    def from_embedded(
        self,
        x: Float[Array, "batch height width channel"],
        context: Float[Array, "batch *positions feature"] | None = None,
    ) -> Float[Array, "batch height width code"]:
        """Computes logits of the vectors that stand for codes."""
        conditions = self.conditions(context)
        above = jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]
        sequence = x.reshape(x.shape[0], -1, x.shape[-1])
        before = jnp.pad(sequence, ((0, 0), (1, 0), (0, 0)))[:, :-1].reshape(x.shape)
        rows, _ = self.rows(above, conditions)
        return self.positions(before, rows, conditions)[0] + self.offset

    def conditions(self, context: Float[Array, "batch *positions feature"] | None) -> PyTree:
        """Computes what each block adds given the context, ``[batch, height, width, feature]``.

        Vectors give maps of height and width 1, which broadcast.

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

    def conditions_of_blocks(
        self, context: Float[Array, "batch height_or_1 width_or_1 feature"] | None
    ) -> PyTree:
        """Computes what each block adds, of as many positions as the context has; one without."""
        raise NotImplementedError

    def rows(
        self,
        above: Float[Array, "batch rows width channel"],
        conditions: PyTree,
        caches: PyTree = None,
        at: Place = (0, 0),
    ) -> tuple[PyTree, PyTree]:
        """Computes what rows are told by those above.

        Args:
          above: For each row, the vectors of the row above; zeros for the first.
          conditions: From `conditions`, of the same rows.
          caches: From the rows before, or None where these are all.
          at: Where the rows begin.

        Returns:
          A pytree of ``[batch, rows, width, feature]``, and the caches with these rows in them.
        """
        raise NotImplementedError

    def positions(
        self,
        before: Float[Array, "batch rows columns channel"],
        rows: PyTree,
        conditions: PyTree,
        caches: PyTree = None,
        at: Place = (0, 0),
    ) -> tuple[Float[Array, "batch rows columns code"], PyTree]:
        """Computes logits.

        Args:
          before: For each position, the vector of the one before, which is the last of the row
            above at the start of a row; zeros for the first of all.
          rows: From `rows`, of the same positions.
          conditions: From `conditions`, of the same positions.
          caches: From the positions before, or None where these are all.
          at: Where the positions begin.

        Returns:
          The logits, and the caches with these positions in them.
        """
        raise NotImplementedError

    def empty_caches(self, batch: int) -> tuple[PyTree, PyTree]:
        """Caches of `rows` and of `positions` before the first."""
        raise NotImplementedError

    def left_of(self, before: Array, at: Place) -> Array:
        """The vectors on the left: what is before, but zeros in the first column."""
        columns = at[1] + jnp.arange(before.shape[2])
        return jnp.where(columns[:, None] > 0, before, 0)

    def logits(
        self, x: Float[Array, "batch rows columns channel"], activation: Callable[[Array], Array]
    ) -> Float[Array, "batch rows columns code"]:
        """Computes logits of the last block's features, position by position."""
        logits = self.outputs(activation(self.hidden(activation(x))))
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))

    def row_of_codes(
        self,
        codes: Int[Array, "batch width"],
        conditions: PyTree,
        caches: PyTree,
        row: Array,
    ) -> tuple[PyTree, PyTree]:
        """`rows` of one row, given the codes of the row above; those of row 0 are ignored."""
        above = jnp.where(row > 0, self.embed(codes)[:, None], 0)
        conditions = _cut(conditions, (row, 0), (1, self.map_shape[1]))
        return self.rows(above, conditions, caches, (row, 0))

    def position_of_code(
        self,
        code: Int[Array, " batch"],
        rows: PyTree,
        conditions: PyTree,
        caches: PyTree,
        at: Place,
    ) -> tuple[Float[Array, "batch code"], PyTree]:
        """Logits of one position, given the code before; that of the first position is ignored."""
        first = (at[0] == 0) & (at[1] == 0)
        before = jnp.where(first, 0, self.embed(code)[:, None, None])
        rows = _cut(rows, (0, at[1]), (1, 1))
        conditions = _cut(conditions, at, (1, 1))
        logits, caches = self.positions(before, rows, conditions, caches, at)
        return logits[:, 0, 0] + self.offset[at], caches

    @nn.nowrap
    def solve(
        self,
        variables: dict[str, Any],
        context: Float[Array, "batch *positions feature"] | None,
        entry: Callable[[Float[Array, "batch code"], PyTree], tuple[Array, PyTree]],
        inputs: PyTree,
        batch: int,
    ) -> PyTree:
        """Finds maps with code_p = entry(logits of p given the codes before, inputs_p).

        Each position costs what it costs of one pass over whole maps; what attention reads is read
        of all positions.

        Args:
          variables: The module's variables.
          context: Vectors, or one for each position, or None.
          entry: Computes the codes ``[batch]`` of a position, and a result, from its logits.
          inputs: Pytree of arrays whose first axes are height and width.
          batch: Number of maps.

        Returns:
          The results, stacked along two new first axes, height and width.
        """
        height, width = self.map_shape
        conditions = self.apply(variables, context, method="conditions")

        def row(carry, given):
            (of_rows, of_positions), codes = carry
            index, inputs = given
            rows, of_rows = self.apply(
                variables, codes, conditions, of_rows, index, method="row_of_codes"
            )

            def position(carry, given):
                caches, code = carry
                column, inputs = given
                logits, caches = self.apply(
                    variables,
                    code,
                    rows,
                    conditions,
                    caches,
                    (index, column),
                    method="position_of_code",
                )
                code, result = entry(logits, inputs)
                code = code.astype(jnp.int32)
                return (caches, code), (code, result)

            (of_positions, _), (codes, results) = jax.lax.scan(
                position, (of_positions, codes[:, -1]), (jnp.arange(width), inputs)
            )
            return ((of_rows, of_positions), codes.T), results

        caches = self.apply(variables, batch, method="empty_caches")
        start = (caches, jnp.zeros((batch, width), jnp.int32))
        return jax.lax.scan(row, start, (jnp.arange(height), inputs))[1]


def _cut(maps: PyTree, at: Place, size: tuple[int, int]) -> PyTree:
    """Cuts the same piece out of all maps, except those that are alike at all positions."""

    def cut(leaf: Array) -> Array:
        if leaf.shape[1:3] == (1, 1):
            return leaf
        sizes = (leaf.shape[0], *size, leaf.shape[3])
        return jax.lax.dynamic_slice(leaf, (0, *at, 0), sizes)

    return jax.tree.map(cut, maps)
