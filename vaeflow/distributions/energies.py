"""Densities on the plane, known up to a constant, for flows to be fitted to.

The energies U of Rezende & Mohamed 2015, "Variational inference with normalizing flows", table 1:
p(z) is proportional to exp(-U(z)) for z = (z1, z2). Each function takes points of shape
``[*batch, 2]`` to energies of shape ``[*batch]``, in nats and float32 or wider.

Three of them don't depend on the place along z1 but through the shape of a wave, so that the
densities of the paper have no integral. Here they end: beyond |z1| = 4, the range that the paper
draws, ((|z1| - 4) / 0.5)^2 / 2 is added.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

RANGE = 4.0
"""Where the waves begin to end, on both sides of 0."""
MARGIN = 0.5
"""Standard deviation of the Gaussian tails by which the waves end."""

Points = Float[Array, "*batch two"]
Energies = Float[Array, "*batch"]


def ring_energy(z: Points) -> Energies:
    """U1, a ring that is denser at its left and right: two modes.

    U = ((||z|| - 2) / 0.4)^2 / 2 - log(exp(-((z1 - 2) / 0.6)^2 / 2) + exp(-((z1 + 2) / 0.6)^2 / 2))

    Raises:
      ValueError: If the last axis of z isn't of two entries.
    """
    z1, z2 = _coordinates(z)
    radius = jnp.sqrt(jnp.maximum(z1**2 + z2**2, jnp.finfo(z1.dtype).tiny))
    modes = jnp.logaddexp(_log_bump(z1 - 2, 0.6), _log_bump(z1 + 2, 0.6))
    return -_log_bump(radius - 2, 0.4) - modes


def wave_energy(z: Points) -> Energies:
    """U2, a wave: U = ((z2 - w1) / 0.4)^2 / 2 with w1 = sin(2 pi z1 / 4).

    Raises:
      ValueError: If the last axis of z isn't of two entries.
    """
    z1, z2 = _coordinates(z)
    return _end(z1) - _log_bump(z2 - _wave(z1), 0.4)


def bulging_wave_energy(z: Points) -> Energies:
    """U3, a wave that parts around a hollow and joins again.

    U = -log(exp(-((z2 - w1) / 0.35)^2 / 2) + exp(-((z2 - w1 + w2) / 0.35)^2 / 2)) with
    w1 = sin(2 pi z1 / 4) and w2 = 3 exp(-((z1 - 1) / 0.6)^2 / 2).

    Raises:
      ValueError: If the last axis of z isn't of two entries.
    """
    z1, z2 = _coordinates(z)
    height = z2 - _wave(z1)
    apart = 3 * jnp.exp(_log_bump(z1 - 1, 0.6))
    return _end(z1) - jnp.logaddexp(_log_bump(height, 0.35), _log_bump(height + apart, 0.35))


def forked_wave_energy(z: Points) -> Energies:
    """U4, a wave that forks into two.

    U = -log(exp(-((z2 - w1) / 0.4)^2 / 2) + exp(-((z2 - w1 + w3) / 0.35)^2 / 2)) with
    w1 = sin(2 pi z1 / 4) and w3 = 3 sigmoid((z1 - 1) / 0.3).

    Raises:
      ValueError: If the last axis of z isn't of two entries.
    """
    z1, z2 = _coordinates(z)
    height = z2 - _wave(z1)
    apart = 3 * jax.nn.sigmoid((z1 - 1) / 0.3)
    return _end(z1) - jnp.logaddexp(_log_bump(height, 0.4), _log_bump(height + apart, 0.35))


def _coordinates(z: Array) -> tuple[Array, Array]:
    if z.shape[-1:] != (2,):
        raise ValueError(f"z must be points of shape [*batch, 2], got an array of shape {z.shape}")
    z = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    return z[..., 0], z[..., 1]


def _wave(z1: Array) -> Array:
    return jnp.sin(jnp.pi / 2 * z1)


def _log_bump(distance: Array, width: float) -> Array:
    return -0.5 * (distance / width) ** 2


def _end(z1: Array) -> Array:
    return -_log_bump(jnp.maximum(jnp.abs(z1) - RANGE, 0), MARGIN)
