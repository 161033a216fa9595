"""Paths between latents: straight lines and great circles (White 2016), for interpolations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["linear_path", "spherical_path"]


def linear_path(
    first: Float[Array, "*batch latent"], last: Float[Array, "*batch latent"], num_steps: int
) -> Float[Array, "*batch step latent"]:
    """Computes (1 - t) a + t b for t = 0, ..., 1.

    Half way between two samples of a standard normal in many dimensions a point is shorter than any
    sample: the path leaves the region where the prior has its mass. `spherical_path` doesn't.

    Args:
      first: a.
      last: b, of the same shape.
      num_steps: Number of steps, both ends included.

    Raises:
      ValueError: If the shapes differ or there are fewer than two steps.
    """
    weights = _weights(first, last, num_steps)
    first, last = first[..., None, :], last[..., None, :]
    return (1 - weights) * first + weights * last


def spherical_path(
    first: Float[Array, "*batch latent"], last: Float[Array, "*batch latent"], num_steps: int
) -> Float[Array, "*batch step latent"]:
    """Computes paths along great circles: the direction turns evenly, the length changes evenly.

    With unit vectors a', b' of a, b at an angle w, and u the unit vector at a right angle to a' in
    their plane, the direction at t is cos(t w) a' + sin(t w) u, which is Shoemake's
    [sin((1 - t) w) a' + sin(t w) b'] / sin(w) without its division. The length is
    ``(1 - t) |a| + t |b|``. Opposite vectors, which span no plane, go through a fixed
    direction at a right angle; a zero vector takes the direction of the other.

    Source: Shoemake 1985, "Animating rotation with quaternion curves"; White 2016, "Sampling
    generative networks", section 2.1, for latents.

    Args:
      first: a.
      last: b, of the same shape.
      num_steps: Number of steps, both ends included.

    Raises:
      ValueError: If the shapes differ or there are fewer than two steps.
    """
    weights = _weights(first, last, num_steps)
    (start, length), (end, last_length) = _polar(first), _polar(last)
    start = jnp.where(length > 0, start, end)
    end = jnp.where(last_length > 0, end, start)
    cosine = jnp.sum(start * end, axis=-1, keepdims=True)
    across = end - cosine * start
    side, sine = _polar(across)
    # The rounding error of parallel vectors has any direction, that of `start` too.
    tiny = sine <= 4 * jnp.finfo(start.dtype).eps
    side = jnp.where(tiny, _right_angle(start), side)
    side, _ = _polar(side - jnp.sum(side * start, axis=-1, keepdims=True) * start)
    angle = weights * jnp.arctan2(jnp.where(tiny, 0.0, sine), cosine)[..., None, :]
    lengths = (1 - weights) * length[..., None, :] + weights * last_length[..., None, :]
    direction = jnp.cos(angle) * start[..., None, :] + jnp.sin(angle) * side[..., None, :]
    return lengths * direction


def _weights(first: Array, last: Array, num_steps: int) -> Float[Array, "step 1"]:
    if first.shape != last.shape or num_steps < 2:
        raise ValueError(
            "first and last must have one shape and num_steps must be at least 2, got shapes "
            f"{first.shape} and {last.shape} and {num_steps}"
        )
    return jnp.linspace(0, 1, num_steps, dtype=first.dtype)[:, None]


def _polar(vector: Array) -> tuple[Array, Array]:
    """Unit vectors, zero for zero, and lengths ``[*batch, 1]``, of whatever magnitude."""
    # Neither result depends on this scale, so it has no gradient.
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(vector), axis=-1, keepdims=True))
    scaled = vector / jnp.where(largest > 0, largest, 1)
    square = jnp.sum(scaled**2, axis=-1, keepdims=True)
    length = jnp.sqrt(jnp.where(square > 0, square, 1))
    return scaled / length, jnp.where(largest > 0, largest * length, 0)


def _right_angle(unit: Array) -> Array:
    """A unit vector at a right angle to each, from the axis of its smallest component."""
    axis = jnp.argmin(jnp.abs(unit), axis=-1)
    other = jnp.eye(unit.shape[-1], dtype=unit.dtype)[axis]
    return _polar(other - jnp.sum(other * unit, axis=-1, keepdims=True) * unit)[0]
