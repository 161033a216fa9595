"""How the registry makes maps by differential equations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from tests.makers import numbers
from vaeflow import bijectors, nn


def velocity(
    key: Array, dimension: int, context: Array | None = None, scale: float = 0.5
) -> bijectors.Conditioner:
    """A small network with random variables."""
    network = nn.TimeDependentMLP(dimension, (4,))
    row = None if context is None else jnp.zeros((1, context.shape[-1]))
    variables = jax.eval_shape(network.init, key, jnp.zeros((1, dimension)), jnp.zeros(1), row)
    leaves, structure = jax.tree.flatten(variables)
    keys = jax.random.split(key, len(leaves))
    leaves = [
        numbers(part, *leaf.shape, scale=scale) for part, leaf in zip(keys, leaves, strict=True)
    ]
    return bijectors.Conditioner(network, jax.tree.unflatten(structure, leaves), context)


def continuous(
    dimension: int, probes: int = 0, **options: Any
) -> Callable[..., bijectors.Continuous]:
    """Makes maps, with a context if they are given one, and with probes if there are any."""

    def make(key: Array, context: Array | None = None) -> bijectors.Continuous:
        probe = {"probe_key": key, "probes": probes} if probes else {}
        return bijectors.Continuous(velocity(key, dimension, context), **probe, **options)

    return make
