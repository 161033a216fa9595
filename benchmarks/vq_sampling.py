"""Samples of a prior over maps of codes: one position after another, and by a pass for each."""

from __future__ import annotations

import time
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

import vaeflow as vf
from benchmarks.vq_size import PriorSize, Way
from vaeflow.distributions.code_maps import truncated_logits


def make(**size: Any) -> Sampling:
    """Makes the side; nothing is computed yet but that JAX finds its device."""
    jax.devices()
    return Sampling(PriorSize(**size))


class Sampling:
    """A prior with noise on its parameters, as at first all codes are equally probable."""

    def __init__(self, size: PriorSize):
        self.size = size
        self.network: nn.Module = getattr(vf.nn, size.network)(
            (size.side, size.side),
            num_codes=size.codes,
            channels=size.channels,
            num_blocks=size.blocks,
        )
        self.prior = vf.models.CodePrior(self.network)
        self.ways = {
            "incremental": jax.jit(self._incremental),
            "naive": jax.jit(lambda variables, key: self._naive(variables, key)[0]),
        }

    def initialize(self) -> int:
        """Initialises; returns the number of parameters."""
        key = jax.random.key(self.size.seed)
        self.variables = jax.jit(_with_noise)(jax.jit(self.prior.init)(key), key)
        self.drawn = 0
        return sum(leaf.size for leaf in jax.tree.leaves(self.variables))

    def run(self, way: Way) -> float:
        """Draws the maps once, compiling at the first; returns the seconds."""
        key = jax.random.key(self.size.seed)
        start = time.perf_counter()
        jax.block_until_ready(self.ways[way](self.variables, key))
        return time.perf_counter() - start

    def agreement(self) -> dict[str, float]:
        """How far both ways agree with the same key.

        Returns:
          "equal", the share of codes that are the same; "difference", the largest of the logits
          that they were drawn from, and "spread", the standard deviation of these.
        """
        key = jax.random.key(self.size.seed)
        drawn = self.ways["incremental"](self.variables, key)
        codes, logits = jax.jit(self._solved)(self.variables, key)
        naive_codes, naive_logits = jax.jit(self._naive)(self.variables, key)
        equal = (drawn == naive_codes) & (codes == naive_codes)
        return {
            "equal": float(jnp.mean(equal)),
            "difference": float(jnp.max(jnp.abs(logits - naive_logits))),
            "spread": float(jnp.std(naive_logits)),
        }

    def _incremental(self, variables: Any, key: Array) -> Int[Array, "map height width"]:
        return self.prior.apply(variables, key, self.size.count, method="sample")

    def _solved(self, variables: Any, key: Array) -> tuple[Array, Array]:
        """The same, with the logits."""

        def entry(logits: Array, key: Array) -> tuple[Array, tuple[Array, Array]]:
            code = _draw(key, logits)
            return code, (code, logits)

        keys = jax.random.split(key, self.network.map_shape)
        results = self.network.solve(_of_network(variables), None, entry, keys, self.size.count)
        return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 2, 0), results)

    def _naive(
        self, variables: Any, key: Array
    ) -> tuple[Int[Array, "map height width"], Float[Array, "map height width code"]]:
        height, width = self.network.map_shape
        keys = jax.random.split(key, (height, width))

        def position(place: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            maps, logits = carry
            row, column = place // width, place % width
            own = self.network.apply(_of_network(variables), maps)[:, row, column]
            maps = maps.at[:, row, column].set(_draw(keys[row, column], own))
            return maps, logits.at[:, row, column].set(own)

        shape = (self.size.count, height, width)
        empty = jnp.zeros(shape, jnp.int32), jnp.zeros((*shape, self.size.codes))
        return jax.lax.fori_loop(0, height * width, position, empty)


def _of_network(variables: Any) -> dict[str, Any]:
    return {"params": variables["params"]["network"]}


def _draw(key: Array, logits: Float[Array, "map code"]) -> Int[Array, " map"]:
    """As `CodeMaps` does, to the last bit of the noise and of the largest logit, which is 0."""
    return jax.random.categorical(key, truncated_logits(logits)).astype(jnp.int32)


def _with_noise(variables: Any, key: Array) -> Any:
    leaves, structure = jax.tree.flatten(variables)
    keys = jax.random.split(key, len(leaves))
    return structure.unflatten(
        [
            leaf + 0.05 * jax.random.normal(key, leaf.shape)
            for key, leaf in zip(keys, leaves, strict=True)
        ]
    )
