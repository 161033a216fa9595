"""Samples of a batch of distributions, each row's from a key of its own."""

from __future__ import annotations

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.distributions.transformed import Transformed


def sample_per_example(
    distribution: distrax.Distribution, keys: Array, samples: int
) -> tuple[Float[Array, "sample batch *event"], Float[Array, "sample batch"]]:
    """Draws samples of each row of a distribution, with their log-densities in nats.

    The noise of a row depends on its key alone, not on how the batch is divided. No inverse is
    taken: a `Transformed` distribution goes from the noise of its base to the samples.

    Args:
      distribution: With the one batch axis ``[batch]``; apart from the bijectors of a
        `Transformed`, which broadcast, every leaf has that axis first.
      keys: A typed key for each row, ``[batch]``.
      samples: Number of samples of each row.

    Raises:
      ValueError: If the batch axes of the distribution aren't those of the keys.
    """
    if distribution.batch_shape != keys.shape:
        raise ValueError(
            f"keys must have the batch axis of the distribution, {distribution.batch_shape}, got "
            f"shape {keys.shape}"
        )
    if isinstance(distribution, Transformed):
        noise, log_prob = sample_per_example(distribution.distribution, keys, samples)
        values, log_det = distribution.bijector.forward_and_log_det(noise)
        return values, log_prob - log_det

    def row(distribution: distrax.Distribution, key: Array) -> tuple[Array, Array]:
        return distribution.sample_and_log_prob(seed=key, sample_shape=samples)

    values, log_prob = jax.vmap(row, out_axes=1)(distribution, keys)
    return values, log_prob.astype(jnp.promote_types(log_prob.dtype, jnp.float32))
