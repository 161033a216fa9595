"""Products of normals: what two of them say together."""

from __future__ import annotations

import distrax
import jax
import jax.numpy as jnp


def product_of_normals(
    first: distrax.Independent, second: distrax.Independent
) -> distrax.Independent:
    """Multiplies the densities of vectors of independent normals, and normalises the result.

    Precisions add up, means are weighted by them: s^-2 = s_1^-2 + s_2^-2 and
    m = (m_1 s_1^-2 + m_2 s_2^-2) s^2. With a prior as the first and a likelihood as the second it
    is Bayes' rule; as s_2 grows, the second says nothing and the first is left.

    Args:
      first: Normals of events ``[entry]``.
      second: Normals of as many entries, whose batch axes broadcast to those of the first.

    Raises:
      ValueError: If one isn't made of independent normals, or their events differ in shape.
    """
    one, two = (getattr(part, "distribution", None) for part in (first, second))
    if not (isinstance(one, distrax.Normal) and isinstance(two, distrax.Normal)):
        raise ValueError(
            f"vectors of independent normals are needed, got {first.name} and {second.name}"
        )
    if first.event_shape != second.event_shape:
        raise ValueError(
            f"both must have one event shape, got {first.event_shape} and {second.event_shape}"
        )
    # The share of the second; as a sigmoid, squares of large deviations can't overflow.
    log_ratio = jnp.log(one.scale) - jnp.log(two.scale)
    share = jax.nn.sigmoid(2 * log_ratio)
    mean = one.loc + share * (two.loc - one.loc)
    scale = jnp.exp(jnp.log(one.scale) - 0.5 * jax.nn.softplus(2 * log_ratio))
    return distrax.Independent(distrax.Normal(mean, scale), 1)
