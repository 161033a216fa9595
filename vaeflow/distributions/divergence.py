"""Divergences in closed form."""

from __future__ import annotations

import distrax
import jax.numpy as jnp
from jaxtyping import Array, Float


def kl_of_entries(
    q: distrax.Distribution, p: distrax.Distribution
) -> Float[Array, "*batch entry"] | None:
    """Computes KL(q || p) of each entry of vectors of independent normals, in nats.

    KL = log(s_p / s_q) + (s_q^2 + (m_q - m_p)^2) / (2 s_p^2) - 1/2 for means m and deviations s.

    Args:
      q: Any distribution; ``[*batch]`` of them.
      p: Another, whose batch axes broadcast to those of q.

    Returns:
      One value for each entry, or None where one of them isn't made of independent normals.
    """
    pair = []
    for distribution in (q, p):
        normal = getattr(distribution, "distribution", None)
        if not isinstance(distribution, distrax.Independent) or not isinstance(
            normal, distrax.Normal
        ):
            return None
        pair.append(normal)
    q, p = pair
    ratio = q.scale / p.scale
    distance = ((q.loc - p.loc) / p.scale) ** 2
    return 0.5 * (distance + (ratio - 1) * (ratio + 1)) - jnp.log(ratio)
