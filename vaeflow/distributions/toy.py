"""Toy problems on the plane: densities, samplers and energies.

Densities (`Histogram`, `checkerboard`, `eight_gaussians`, `image_density`) have exact
log-densities, samplers (`two_moons`, `pinwheel`, `two_spirals`) are functions of a key, and
the energies are U1 to U4 of Rezende & Mohamed 2015, "Variational inference with normalizing
flows", table 1.
"""

from __future__ import annotations

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vaeflow.distributions.gaussian import Normal
from vaeflow.distributions.histogram import Histogram
from vaeflow.distributions.mixture import Mixture

__all__ = [
    "Histogram",
    "bulging_wave_energy",
    "checkerboard",
    "eight_gaussians",
    "forked_wave_energy",
    "image_density",
    "pinwheel",
    "ring_energy",
    "two_moons",
    "two_spirals",
    "wave_energy",
]

WAVE_RANGE = 4.0
"""The waves have Gaussian tails where |z1| exceeds this."""

WAVE_TAIL = 0.5
"""Standard deviation of the tails."""

SampledPoints = Float[Array, "*shape two"]
Points = Float[Array, "*batch two"]
Energies = Float[Array, "*batch"]


def checkerboard() -> Histogram:
    """The uniform distribution on every other square of a board of 4 x 4 squares of side 2.

    Its entropy is log 32 nats.
    """
    return Histogram(np.indices((4, 4)).sum(0) % 2, [-4.0, -4.0], [4.0, 4.0])


def eight_gaussians() -> Mixture:
    """Eight equal Gaussians of deviation 0.35 on a circle of radius 2.8."""
    angles = 2 * np.pi * np.arange(8) / 8
    means = 2.8 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    components = Normal(jnp.asarray(means, jnp.float32), jnp.full((8, 2), 0.35))
    return Mixture(jnp.zeros(8, jnp.float32), distrax.Independent(components, 1))


def image_density(brightness: Float[np.ndarray, "row column"]) -> Histogram:
    """A density in proportion to the brightness of an image, uniform within each pixel.

    The longer side of the image goes from -4 to 4, and its center is at 0.

    Args:
      brightness: Of each pixel, the first row being the top.

    Raises:
      ValueError: If the array isn't an image, or if its values aren't finite, are negative, or are
        all 0.
    """
    brightness = np.asarray(brightness)
    if brightness.ndim != 2 or not brightness.size:
        raise ValueError(
            f"brightness must have shape [row, column], above 0, got {brightness.shape}"
        )
    if not np.all(np.isfinite(brightness) & (brightness >= 0)) or not np.any(brightness > 0):
        raise ValueError(
            "brightness must be finite, at least 0 and somewhere above 0 to be a density, got "
            f"values from {brightness.min():g} to {brightness.max():g}"
        )
    rows, columns = brightness.shape
    corner = 4 * np.array([columns, rows]) / max(rows, columns)
    return Histogram(brightness[::-1], -corner, corner)


def two_moons(key: Array, shape: tuple[int, ...] = ()) -> SampledPoints:
    """Samples two interlocking half circles of radius 2.4, blurred by a Gaussian of deviation 0.2.

    They are the points (cos t - 0.5, sin t - 0.25) and their negatives, times 2.4, for t uniform
    between 0 and pi.
    """
    for_side, for_angle, for_noise = jax.random.split(key, 3)
    angle = jax.random.uniform(for_angle, shape, jnp.float32, maxval=jnp.pi)
    moon = jnp.stack([jnp.cos(angle) - 0.5, jnp.sin(angle) - 0.25], axis=-1)
    return 2.4 * _side(for_side, shape) * moon + 0.2 * _noise(for_noise, shape)


def pinwheel(key: Array, shape: tuple[int, ...] = ()) -> SampledPoints:
    """Samples five arms, each a Gaussian along a ray, turned by an angle that grows outwards.

    Before the turn, the point is (1 + 0.3 e1, 0.1 e2) for standard normal e; arm k turns it by
    2 pi k / 5 + exp(1 + 0.3 e1) / 4; the whole is doubled.

    Source: Johnson, Duvenaud, Wiltschko, Datta & Adams 2016, "Composing graphical models with
    neural networks for structured representations and fast inference", whose data these are.
    """
    for_arm, for_noise = jax.random.split(key)
    arm = jax.random.randint(for_arm, shape, 0, 5)
    along, across = jnp.moveaxis(_noise(for_noise, shape), -1, 0)
    along, across = 1 + 0.3 * along, 0.1 * across
    angle = 2 * jnp.pi * arm / 5 + jnp.exp(along) / 4
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return 2 * jnp.stack([along * cos - across * sin, along * sin + across * cos], axis=-1)


def two_spirals(key: Array, shape: tuple[int, ...] = ()) -> SampledPoints:
    """Samples two spirals of 1.5 turns to radius 3.6, blurred by a Gaussian of deviation 0.1.

    They are the points 3.6 r (-cos(3 pi r), sin(3 pi r)) and their negatives, for r the square root
    of a uniform number, which makes the outer turns as dense as the inner ones.
    """
    for_side, for_radius, for_noise = jax.random.split(key, 3)
    radius = jnp.sqrt(jax.random.uniform(for_radius, shape, jnp.float32))
    angle = 3 * jnp.pi * radius
    arm = radius[..., None] * jnp.stack([-jnp.cos(angle), jnp.sin(angle)], axis=-1)
    return 3.6 * _side(for_side, shape) * arm + 0.1 * _noise(for_noise, shape)


def _side(key: Array, shape: tuple[int, ...]) -> Array:
    """1 or -1 for each point, with an axis for its dimensions."""
    return jax.random.rademacher(key, (*shape, 1), jnp.float32)


def _noise(key: Array, shape: tuple[int, ...]) -> Array:
    return jax.random.normal(key, (*shape, 2), jnp.float32)


def ring_energy(z: Points) -> Energies:
    """Computes U1, a ring that is denser at its left and right: two modes.

    U = ((||z|| - 2) / 0.4)^2 / 2 - log(exp(-((z1 - 2) / 0.6)^2 / 2) + exp(-((z1 + 2) / 0.6)^2 / 2))

    Raises:
      ValueError: If the last axis of z doesn't have size 2.
    """
    z1, z2 = _coordinates(z)
    radius = jnp.sqrt(jnp.maximum(z1**2 + z2**2, jnp.finfo(z1.dtype).tiny))
    modes = jnp.logaddexp(_log_bump(z1 - 2, 0.6), _log_bump(z1 + 2, 0.6))
    return -_log_bump(radius - 2, 0.4) - modes


def wave_energy(z: Points) -> Energies:
    """Computes U2, a wave: U = ((z2 - w1) / 0.4)^2 / 2 with w1 = sin(2 pi z1 / 4).

    Raises:
      ValueError: If the last axis of z doesn't have size 2.
    """
    z1, z2 = _coordinates(z)
    return _tail_energy(z1) - _log_bump(z2 - _wave(z1), 0.4)


def bulging_wave_energy(z: Points) -> Energies:
    """Computes U3, a wave that splits around a hole and joins again.

    U = -log(exp(-((z2 - w1) / 0.35)^2 / 2) + exp(-((z2 - w1 + w2) / 0.35)^2 / 2)) with
    w1 = sin(2 pi z1 / 4) and w2 = 3 exp(-((z1 - 1) / 0.6)^2 / 2).

    Raises:
      ValueError: If the last axis of z doesn't have size 2.
    """
    z1, z2 = _coordinates(z)
    height = z2 - _wave(z1)
    gap = 3 * jnp.exp(_log_bump(z1 - 1, 0.6))
    return _tail_energy(z1) - jnp.logaddexp(_log_bump(height, 0.35), _log_bump(height + gap, 0.35))


def forked_wave_energy(z: Points) -> Energies:
    """Computes U4, a wave that forks into two.

    U = -log(exp(-((z2 - w1) / 0.4)^2 / 2) + exp(-((z2 - w1 + w3) / 0.35)^2 / 2)) with
    w1 = sin(2 pi z1 / 4) and w3 = 3 sigmoid((z1 - 1) / 0.3).

    Raises:
      ValueError: If the last axis of z doesn't have size 2.
    """
    z1, z2 = _coordinates(z)
    height = z2 - _wave(z1)
    gap = 3 * jax.nn.sigmoid((z1 - 1) / 0.3)
    return _tail_energy(z1) - jnp.logaddexp(_log_bump(height, 0.4), _log_bump(height + gap, 0.35))


def _coordinates(z: Array) -> tuple[Array, Array]:
    if z.shape[-1:] != (2,):
        raise ValueError(f"z must be points of shape [*batch, 2], got an array of shape {z.shape}")
    z = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    return z[..., 0], z[..., 1]


def _wave(z1: Array) -> Array:
    return jnp.sin(jnp.pi / 2 * z1)


def _log_bump(distance: Array, width: float) -> Array:
    return -0.5 * (distance / width) ** 2


def _tail_energy(z1: Array) -> Array:
    """Energy of the Gaussian tails, which make the waves integrable."""
    return -_log_bump(jnp.maximum(jnp.abs(z1) - WAVE_RANGE, 0), WAVE_TAIL)
