"""Block neural autoregressive flows."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow import bijectors
from vaeflow.bijectors.block_autoregressive import Block
from vaeflow.flows.vector import VectorFlow


class BlockAutoregressiveFlow(VectorFlow):
    """Networks in which each entry only rises with itself, from data to noise, for densities.

    Each step standardises the entries, sends them through the network and reverses their order. At
    first a step is close to the mean of the identity and a tanh.

    The inverse of the bijector, from data to noise, is the cheap direction: one pass of the network
    a step. Samples take a search for each entry.

    Shapes: noise and data are ``[*batch, channel]``.

    Source: De Cao, Titov & Aziz 2019, "Block neural autoregressive flow".

    Attributes:
      width: Number of hidden units of each entry.
      blocks: Number of hidden layers.
    """

    width: int = 8
    blocks: int = 1

    to_noise = True

    def step(self) -> _BlockAutoregressiveStep:
        """Builds the step, from data to noise."""
        return _BlockAutoregressiveStep(self.event_shape[0], self.width, self.blocks)


@dataclasses.dataclass(frozen=True)
class _BlockAutoregressiveStep:
    """Actnorm, then a network with positive diagonal blocks, then a reversal of the entries.

    Attributes:
      channels: Number of entries of a vector.
      width: Number of hidden units of each entry.
      blocks: Number of hidden layers.
    """

    channels: int
    width: int = 8
    blocks: int = 1

    event_ndims = 1
    collections = ("params",)

    def init(
        self, key: Array, data: Float[Array, "batch channel"], context: Array | None
    ) -> dict[str, Any]:
        """Standardises the data, and draws a network whose entries hardly depend on others."""
        shift, log_scale = bijectors.actnorm_parameters(data)
        parameters = {
            "actnorm": {"shift": shift, "log_scale": log_scale},
            "gate": jnp.zeros(self.channels),
        }
        sizes = [1, *[self.width] * self.blocks, 1]
        for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            # Noise, as units that start alike would stay alike.
            around, below, offset = jax.random.split(jax.random.fold_in(key, number), 3)
            shape = (self.channels, outputs, self.channels, inputs)
            scale = 0.1 / math.sqrt(self.channels * inputs)
            parameters[f"layer_{number}"] = {
                "diagonal": 0.1 * jax.random.normal(around, (self.channels, outputs, inputs))
                - math.log(inputs),
                "below": scale * jax.random.normal(below, shape),
                "bias": 0.1 * jax.random.normal(offset, (self.channels, outputs)),
            }
        if context is not None:
            parameters["context"] = jnp.zeros((context.shape[-1], self.channels, sizes[1]))
        return {"params": parameters}

    def __call__(self, variables: dict[str, Any], context: Array | None) -> bijectors.Chain:
        """Builds the step from its variables."""
        parameters = variables["params"]
        blocks = [Block(**parameters[f"layer_{number}"]) for number in range(self.blocks + 1)]
        if context is not None:
            given = jnp.tensordot(context, parameters["context"], 1)
            blocks[0] = blocks[0]._replace(bias=blocks[0].bias + given)
        return bijectors.Chain(
            [
                bijectors.Reverse(),
                bijectors.BlockAutoregressive(blocks, parameters["gate"]),
                bijectors.ActNorm(**parameters["actnorm"], event_ndims=1),
            ]
        )
