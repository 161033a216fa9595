"""How the registry makes bijectors of vectors whose parameters may depend on the example."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
from jaxtyping import Array

from tests.makers import numbers
from vaeflow import bijectors


def amortised(
    key: Array, context: Array | None, shapes: Sequence[tuple[int, ...]], scale: float = 0.5
) -> list[Array]:
    """Random parameters of these shapes, linear in the context if there is one."""
    parameters = []
    for part, shape in zip(jax.random.split(key, len(shapes)), shapes, strict=True):
        keys = jax.random.split(part)
        value = numbers(keys[0], *shape, scale=scale)
        if context is not None:
            weight = numbers(keys[1], context.shape[-1], *shape, scale=scale)
            value = value + jax.numpy.tensordot(context, weight, 1)
        parameters.append(value)
    return parameters


def planar(dimension: int, negative_slope: float | None = None) -> Callable[..., bijectors.Planar]:
    """Makes planar maps."""

    def make(key: Array, context: Array | None = None) -> bijectors.Planar:
        shapes = ((dimension,), (dimension,), ())
        return bijectors.Planar(*amortised(key, context, shapes), negative_slope)

    return make


def radial(dimension: int) -> Callable[..., bijectors.Radial]:
    """Makes radial maps."""

    def make(key: Array, context: Array | None = None) -> bijectors.Radial:
        return bijectors.Radial(*amortised(key, context, ((dimension,), (), ())))

    return make
