"""How the registry makes monotone maps of each entry and block autoregressive ones."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jaxtyping import Array

from tests.makers import numbers
from tests.vector_makers import amortised
from vaeflow import bijectors, flows
from vaeflow.flows.base import StepOf


def bernstein(dimension: int, degree: int = 5) -> Callable[..., bijectors.BernsteinPolynomial]:
    """Makes polynomials."""

    def make(key: Array, context: Array | None = None) -> bijectors.BernsteinPolynomial:
        (shares,) = amortised(key, context, [(dimension, degree)], scale=1.0)
        return bijectors.BernsteinPolynomial(shares, 3.0)

    return make


def monotone_network(dimension: int, units: int = 3) -> Callable[..., bijectors.MonotoneNetwork]:
    """Makes increasing networks."""

    def make(key: Array, context: Array | None = None) -> bijectors.MonotoneNetwork:
        return bijectors.MonotoneNetwork(*amortised(key, context, [(dimension, units)] * 3))

    return make


def mixture_gaussianization(
    dimension: int, kernels: int = 3
) -> Callable[..., bijectors.MixtureGaussianization]:
    """Makes maps of mixtures to the normal scale."""

    def make(key: Array, context: Array | None = None) -> bijectors.MixtureGaussianization:
        shapes = [(dimension, kernels)] * 3
        return bijectors.MixtureGaussianization(*amortised(key, context, shapes))

    return make


def block_autoregressive(
    dimension: int, width: int = 3, blocks: int = 2
) -> Callable[..., bijectors.BlockAutoregressive]:
    """Makes block autoregressive maps."""
    step = StepOf(flows.BlockAutoregressiveFlow((dimension,), hidden_sizes=(width,) * blocks))

    def make(key: Array, context: Array | None = None) -> bijectors.BlockAutoregressive:
        rows = jax.random.normal(jax.random.key(1), (4, dimension))
        variables = step.init(key, rows, None if context is None else context.reshape(-1, 2)[:1])
        leaves, structure = jax.tree.flatten(variables)
        keys = jax.random.split(key, len(leaves))
        leaves = [leaf + numbers(k, *leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
        return step(jax.tree.unflatten(structure, leaves), context).bijectors[1]

    return make
