"""Tails of the standard normal distribution, in logarithms that never run out of range."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

FAR = 5.0
"""Where a continued fraction takes over from the error function."""

TERMS = 20
"""Terms of the fraction: at 5 they leave an error of 1e-15."""

NEWTON_STEPS = 6
"""Steps from the bound on a quantile to the quantile, to the last bits of float64."""


@jax.custom_jvp
def log_tail(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Computes log P(Z > z) for a standard normal Z."""
    return jnp.where(z < FAR, _log_tail_near(z), _log_density(z) - _log_hazard_far(z))


@log_tail.defjvp
def _log_tail_jvp(primals, tangents):
    (z,), (dz,) = primals, tangents
    return log_tail(z), -jnp.exp(log_hazard(z)) * dz


@jax.custom_jvp
def log_hazard(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Computes the logarithm of the hazard h(z) = density(z) / P(Z > z), which nears z far out."""
    near = jnp.minimum(z, FAR)
    return jnp.where(z < FAR, _log_density(near) - _log_tail_near(near), _log_hazard_far(z))


@log_hazard.defjvp
def _log_hazard_jvp(primals, tangents):
    (z,), (dz,) = primals, tangents
    return log_hazard(z), _excess(z) * dz


def _log_tail_near(z: Array) -> Array:
    below = jnp.log1p(-lax.erfc(-jnp.minimum(z, 0) / math.sqrt(2)) / 2)
    above = jnp.log(lax.erfc(jnp.clip(z, 0, FAR) / math.sqrt(2)) / 2)
    return jnp.where(z < 0, below, above)


def _excess(z: Array) -> Array:
    """h(z) - z, which is the slope of log h."""
    near = jnp.minimum(z, FAR)
    return jnp.where(z < FAR, jnp.exp(log_hazard(near)) - near, _excess_far(z))


def _excess_far(z: Array) -> Array:
    """1 / (z + 2 / (z + 3 / (z + ...))), where z is large."""
    z = jnp.maximum(z, FAR)
    fraction = z
    for term in range(TERMS, 1, -1):
        fraction = z + term / fraction
    return 1 / fraction


def _log_hazard_far(z: Array) -> Array:
    return jnp.log(jnp.maximum(z, FAR) + _excess_far(z))


def _log_density(z: Array) -> Array:
    return -(z**2) / 2 - math.log(2 * math.pi) / 2


@jax.custom_jvp
def tail_quantile(log_probability: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Computes z with P(Z > z) = p from log p, for p of at most 1/2.

    By Newton's method on log P, which is concave: from sqrt(-2 log(2 p)), a bound from above, it
    comes down to z without overshooting.
    """
    # Probabilities of a half may be rounded up.
    z = jnp.sqrt(jnp.maximum(-2 * (log_probability + math.log(2)), 0))

    def improve(_, z):
        return z + (log_tail(z) - log_probability) * jnp.exp(-log_hazard(z))

    return lax.fori_loop(0, NEWTON_STEPS, improve, z)


@tail_quantile.defjvp
def _tail_quantile_jvp(primals, tangents):
    (log_probability,), (change,) = primals, tangents
    z = tail_quantile(log_probability)
    return z, -change * jnp.exp(-log_hazard(z))
