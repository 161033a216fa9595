"""How the registry makes residual maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array

from tests.makers import numbers
from vaeflow import bijectors, nn


def contraction(
    key: Array,
    channels: int,
    context: Array | None = None,
    *,
    hidden_sizes: Sequence[int] = (4, 4),
    lipschitz: float = 0.9,
    scale: float = 1.0,
) -> bijectors.Conditioner:
    """A network of random variables of this size, whose kernels mostly exceed their bounds."""
    module = nn.LipschitzMLP(channels, tuple(hidden_sizes), lipschitz, parent=None)
    example = None if context is None else jnp.zeros((1, context.shape[-1]))
    variables = jax.eval_shape(module.init, key, jnp.zeros((1, channels)), example)
    leaves, structure = jax.tree.flatten(variables)
    keys = jax.random.split(key, len(leaves))
    drawn = [
        numbers(part, *leaf.shape, scale=scale) for part, leaf in zip(keys, leaves, strict=True)
    ]
    return bijectors.Conditioner(module, jax.tree.unflatten(structure, drawn), context)


def residual(channels: int) -> Callable[..., bijectors.Residual]:
    """Makes residual maps, with a context if they are given one."""

    def make(key: Array, context: Array | None = None) -> bijectors.Residual:
        return bijectors.Residual(contraction(key, channels, context))

    return make
