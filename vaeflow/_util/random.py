"""Random keys for each row of a batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def row_keys(rng: jax.Array, count: int) -> jax.Array:
    """Returns one key for each row of a batch.

    Noise sampled row by row doesn't depend on how the batch is divided between devices.

    Args:
      rng: One typed key, which is split, or an array of `count` typed keys, returned as it is.
      count: Number of rows.

    Returns:
      Typed keys of shape [count].

    Raises:
      ValueError: If `rng` isn't made of typed keys, or has neither of these shapes.
    """
    if not jnp.issubdtype(jnp.asarray(rng).dtype, jax.dtypes.prng_key):
        raise ValueError(f"rng must be typed keys (jax.random.key), got dtype {rng.dtype}")
    if rng.shape == ():
        return jax.random.split(rng, count)
    if rng.shape == (count,):
        return rng
    raise ValueError(f"rng must have shape () or ({count},), one key a row; got {rng.shape}")
