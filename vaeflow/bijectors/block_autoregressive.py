"""Autoregressive maps by one network with positive diagonal blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors.amortised import prepare_vectors
from vaeflow.bijectors.base import Bijector
from vaeflow.bijectors.numerical import solve_monotone


class Block(NamedTuple):
    """A dense layer whose units belong to entries.

    Attributes:
      diagonal: Logarithms of the weights between units of the same entry,
        ``[entry, output, input]``.
      below: Weights ``[entry, output, entry, input]`` to the units of an entry from those of
        earlier entries; the others aren't read.
      bias: ``[*batch, entry, output]``; may differ between examples.
    """

    diagonal: Float[Array, "entry output input"]
    below: Float[Array, "entry output entry input"]
    bias: Float[Array, "*batch entry output"]


class BlockAutoregressive(Bijector):
    """Sends vectors through a network in which each entry only rises with itself.

    y = g x + (1 - g) f(x), entry by entry, where f is a network with tanh between its layers and g
    in (0, 1) is a gate. Weights between units of the same entry are positive, those from later
    entries are zero: the Jacobian is triangular and its diagonal positive. The term g x takes the
    map onto all of the space, which f, being bounded, doesn't reach.

    log|det dy/dx| = sum of log(g + (1 - g) df_i/dx_i), where the logarithm of df_i/dx_i is a chain
    of products of positive matrices, summed in logarithms.

    Forward is the cheap direction: one pass of the network. The inverse solves one equation after
    another, each in one entry, by `solve_monotone`: as many passes as the searches of all entries
    take, with NaN where one fails.

    Shapes: events are ``[entry]``.

    Source: De Cao, Titov & Aziz 2019, "Block neural autoregressive flow", without weight
    normalization.
    """

    def __init__(self, blocks: Sequence[Block], gate: Float[Array, " entry"]):
        """Builds the map.

        Args:
          blocks: The layers, the first with one input and the last with one output for each entry.
          gate: Logits of the gate g.

        Raises:
          ValueError: If the shapes of the layers don't fit each other.
        """
        super().__init__(event_ndims_in=1)
        self.blocks = [Block(*map(jnp.asarray, block)) for block in blocks]
        self.gate = jnp.asarray(gate)
        inputs = 1
        for block in self.blocks:
            entries, outputs, width = block.diagonal.shape
            expected = (entries, outputs, entries, width)
            if (
                width != inputs
                or block.below.shape != expected
                or block.bias.shape[-2:] != (entries, outputs)
                or self.gate.shape != (entries,)
            ):
                raise ValueError(
                    f"blocks: expected {inputs} inputs for each of {self.gate.shape} entries, got "
                    f"diagonal {block.diagonal.shape}, below {block.below.shape} and bias "
                    f"{block.bias.shape}"
                )
            inputs = outputs
        if inputs != 1:
            raise ValueError(f"the last block must have one output for each entry, got {inputs}")

    def _mapped(self, x: Array) -> tuple[Array, Array]:
        """Computes y, and log dy_i/dx_i."""
        units = x[..., None]
        log_slope = jnp.zeros_like(units)
        for number, block in enumerate(self.blocks):
            if number:
                # The logarithm of the derivative of tanh.
                bend = 2 * (math.log(2.0) - units - jax.nn.softplus(-2 * units))
                units, log_slope = jnp.tanh(units), log_slope + bend
            entries = len(self.gate)
            earlier = jnp.tril(jnp.ones((entries, entries), bool), -1)[:, None, :, None]
            below = jnp.where(earlier, block.below, 0)
            diagonal = jnp.exp(block.diagonal)
            units = (
                jnp.einsum("eojk,...jk->...eo", below, units)
                + jnp.einsum("eok,...ek->...eo", diagonal, units)
                + block.bias
            )
            log_slope = jax.nn.logsumexp(block.diagonal + log_slope[..., None, :], axis=-1)
        keep, rest = jax.nn.log_sigmoid(self.gate), jax.nn.log_sigmoid(-self.gate)
        y = jnp.exp(keep) * x + jnp.exp(rest) * units[..., 0]
        return y, jnp.logaddexp(keep, rest + log_slope[..., 0])

    def _prepared(self, x: Array) -> Array:
        batch = jnp.broadcast_shapes(*(block.bias.shape[:-2] for block in self.blocks))
        return prepare_vectors(self.name, x, len(self.gate), batch)

    def _forward(self, x):
        y, log_slope = self._mapped(self._prepared(x))
        return y, jnp.sum(log_slope, axis=-1)

    def _inverse(self, y):
        y = self._prepared(y)

        def turn(known, here):
            entry = solve_monotone(_one_entry, (self, known, here), jnp.sum(y * here, axis=-1))
            return known + entry[..., None] * here, None

        places = jnp.eye(len(self.gate), dtype=y.dtype)
        x, _ = jax.lax.scan(turn, jnp.zeros_like(y), places)
        return x, -jnp.sum(self._mapped(x)[1], axis=-1)


def _one_entry(parameters: tuple[BlockAutoregressive, Array, Array], entry: Array) -> Array:
    """The image of an entry, those before it being known and those after it zero."""
    bijector, known, here = parameters
    return jnp.sum(bijector._mapped(known + entry[..., None] * here)[0] * here, axis=-1)
