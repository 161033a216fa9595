"""How the registry makes linear and Sylvester maps."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jaxtyping import Array

from tests.makers import convolution, numbers
from tests.vector_makers import amortised
from vaeflow import bijectors
from vaeflow.bijectors.linear import plu_factors
from vaeflow.bijectors.orthogonal import householder_product


def lu_linear(dimension: int, pivoted: bool) -> Callable[[Array], bijectors.LULinear]:
    """Makes maps by triangular factors, with or without a permutation and signs."""

    def make(key: Array) -> bijectors.LULinear:
        if pivoted:
            return bijectors.LULinear(**plu_factors(convolution(1, dimension)(key).weight))
        keys = jax.random.split(key, 3)
        square = (dimension, dimension)
        return bijectors.LULinear(
            numbers(keys[0], *square), numbers(keys[1], *square), numbers(keys[2], dimension)
        )

    return make


def qr_linear(dimension: int, reflections: int) -> Callable[[Array], bijectors.QRLinear]:
    """Makes maps by orthogonal and triangular factors."""

    def make(key: Array) -> bijectors.QRLinear:
        keys = jax.random.split(key, 3)
        return bijectors.QRLinear(
            numbers(keys[0], reflections, dimension),
            numbers(keys[1], dimension, dimension),
            numbers(keys[2], dimension),
        )

    return make


def sylvester(
    dimension: int, columns: int, basis: Callable[[Array], Array] | None
) -> Callable[..., bijectors.Sylvester]:
    """Makes Sylvester maps, with a basis from a free matrix ``[dimension, columns]`` or without."""

    def make(key: Array, context: Array | None = None) -> bijectors.Sylvester:
        square = (columns, columns)
        shapes = ((dimension, columns), square, square, (columns,))
        directions, *rest = amortised(key, context, shapes)
        return bijectors.Sylvester(None if basis is None else basis(directions), *rest)

    return make


def reflections(dimension: int, count: int) -> Callable[..., bijectors.Householder]:
    """Makes products of reflections."""

    def make(key: Array, context: Array | None = None) -> bijectors.Householder:
        return bijectors.Householder(*amortised(key, context, [(count, dimension)], scale=1.0))

    return make


def householder(directions: Array) -> Array:
    """The square basis of as many reflections as there are columns."""
    return householder_product(directions.mT)
