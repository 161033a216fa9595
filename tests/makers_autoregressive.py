"""How the registry makes masked autoregressive maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array

from tests.makers import numbers
from vaeflow import bijectors, nn


def network(
    key: Array,
    dimension: int,
    parameters: int,
    context: Array | None = None,
    hidden_sizes: Sequence[int] = (5, 4),
) -> bijectors.Conditioner:
    """A masked network with random variables."""
    module = nn.MaskedMLP(
        dimension,
        num_parameters=parameters,
        hidden_sizes=tuple(hidden_sizes),
        activation=jnp.tanh,
        parent=None,
    )
    example = None if context is None else jnp.zeros((1, context.shape[-1]))
    variables = jax.eval_shape(module.init, key, jnp.zeros((1, dimension)), example)
    leaves, structure = jax.tree.flatten(variables)
    keys = jax.random.split(key, len(leaves))
    drawn = [numbers(part, *leaf.shape) for part, leaf in zip(keys, leaves, strict=True)]
    return bijectors.Conditioner(module, jax.tree.unflatten(structure, drawn), context)


def masked_autoregressive(
    dimension: int, transformer: bijectors.Transformer
) -> Callable[..., bijectors.MaskedAutoregressive]:
    """Makes masked autoregressive maps, with a context if they are given one."""

    def make(key: Array, context: Array | None = None) -> bijectors.MaskedAutoregressive:
        conditioner = network(key, dimension, transformer.num_parameters, context)
        return bijectors.MaskedAutoregressive(conditioner, transformer)

    return make
