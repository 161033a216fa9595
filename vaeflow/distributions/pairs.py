"""Log-densities of many vectors under many independent normals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def pairwise_log_prob(
    normal: distrax.Normal,
    values: Float[Array, "row entry"],
    of_entry: Callable[[Float[Array, "component row"]], Any] = lambda log_density: None,
) -> tuple[Float[Array, "component row"], Any]:
    """Computes log N(x_r; mean_k, scale_k) for each component k and row r, in nats.

    One entry at a time, forward and backward: memory doesn't grow with their number, and whoever
    sums over components does so over the leading axis, which CPUs do best.

    Args:
      normal: ``[component, entry]`` normals.
      values: The rows.
      of_entry: What else is asked of the log-densities of each entry.

    Returns:
      The log-densities, summed over entries, and what `of_entry` answered, stacked by entry.
    """

    @jax.checkpoint
    def add(total: Array, columns: tuple[Array, Array, Array]) -> tuple[Array, Any]:
        loc, scale, value = columns
        log_density = distrax.Normal(loc[:, None], scale[:, None]).log_prob(value)
        return total + log_density, of_entry(log_density)

    dtype = jnp.result_type(normal.loc, normal.scale, values)
    nothing = jnp.zeros((normal.loc.shape[0], values.shape[0]), dtype)
    return jax.lax.scan(add, nothing, (normal.loc.T, normal.scale.T, values.T))
