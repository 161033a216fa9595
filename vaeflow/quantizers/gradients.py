"""Gradients through the choice of a code, whose own derivative is zero."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Gradient = Callable[[Array, Array], Array]
"""From features and their codes to the codes, with a gradient toward the features."""


def straight_through(
    features: Float[Array, "*batch channel"], codes: Float[Array, "*batch channel"]
) -> Float[Array, "*batch channel"]:
    """Returns the codes; the gradient passes to the features as it is: dq/dx = I.

    Source: Bengio, Leonard & Courville 2013, "Estimating or propagating gradients through
    stochastic neurons"; van den Oord, Vinyals & Kavukcuoglu 2017, "Neural discrete representation
    learning", section 3.2.
    """
    # x - x is exactly zero, so the values are exactly those of the codes.
    return jax.lax.stop_gradient(codes) + (features - jax.lax.stop_gradient(features))


def rotation_trick(
    features: Float[Array, "*batch channel"], codes: Float[Array, "*batch channel"]
) -> Float[Array, "*batch channel"]:
    """Returns the codes; dq/dx = (||e|| / ||x||) R, the rotation and scaling that takes x to e.

    R = I - 2 r r^T + 2 e' x'^T with the directions e' and x' and r = (x' + e') / ||x' + e'||, all
    held constant. The gradient keeps its angle to the code: features far from their code are
    pushed, and not only moved along with it. Where a length is zero, the gradient is that of
    `straight_through`.

    Source: Fifty et al. 2024, "Restructuring vector quantization with the rotation trick",
    section 4.
    """
    codes = jax.lax.stop_gradient(codes)
    constant = jax.lax.stop_gradient(features)
    source, target = unit(constant), unit(codes)
    mirror = unit(source + target)
    ratio = _length(codes) / _length(constant)
    defined = (ratio > 0) & jnp.isfinite(ratio)
    turned = (
        features
        - 2 * mirror * jnp.sum(mirror * features, axis=-1, keepdims=True)
        + 2 * target * jnp.sum(source * features, axis=-1, keepdims=True)
    )
    moved = jnp.where(defined, jnp.where(defined, ratio, 1) * turned, features)
    return codes + (moved - jax.lax.stop_gradient(moved))


def unit(x: Float[Array, "*batch channel"]) -> Float[Array, "*batch channel"]:
    """Computes x / ||x||, and 0 with a zero gradient for x = 0."""
    size = _size(x)
    # Squares of entries below 1e-19 would be zero, those above 1e19 infinite.
    scaled = jnp.where(size > 0, x, 1) / jnp.where(size > 0, size, 1)
    norm = jnp.sqrt(jnp.sum(jnp.square(scaled), axis=-1, keepdims=True))
    return jnp.where(size > 0, scaled / norm, 0)


def _size(x: Array) -> Array:
    """The largest entry in size; a constant, as directions don't depend on it."""
    return jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True, initial=0))


def _length(x: Array) -> Array:
    size = _size(x)
    scaled = x / jnp.where(size > 0, size, 1)
    return size * jnp.sqrt(jnp.sum(jnp.square(scaled), axis=-1, keepdims=True))
