"""Likelihoods of latent-variable models by importance sampling."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from vaeflow.randomness import row_keys


def importance_weighted_log_likelihood(
    model: nn.Module,
    variables: dict[str, Any],
    images: UInt8[Array, "batch height width channel"],
    rng: Array,
    *,
    samples: int = 5000,
    chunk: int = 100,
    context: Array | None = None,
) -> Float[Array, " batch"]:
    """Estimates log p(x) of each image by log (1/k) sum_i p(x | z_i) p(z_i) / q(z_i | x), z_i ~ q.

    A lower bound on average, which rises with k. An image is observed once, so one that is
    binarised is the same for all samples. Pure, for use within compiled functions; memory grows
    with the chunk, not with k.

    Source: Rezende, Mohamed & Wierstra 2014, appendix E; Burda, Grosse & Salakhutdinov 2016,
    section 5.

    Args:
      model: A `vaeflow.models.VAE`, or a module with its `observe`, `infer` and `likelihood`.
      variables: The model's variables.
      images: Images of dtype uint8.
      rng: A typed key, or one for each row.
      samples: Number k of samples of each row.
      chunk: Number of them at a time; it must divide `samples`.
      context: Labels ``[batch]``, or None.

    Returns:
      Nats of each image, ``[batch]``; divided by -D log 2 they are bits/dim.

    Raises:
      ValueError: If the chunk doesn't divide the number of samples.
    """
    if samples < 1 or chunk < 1 or samples % chunk:
        raise ValueError(f"chunk must divide samples, got {chunk} and {samples}")
    keys = row_keys(rng, images.shape[0])
    values, log_det = model.apply(variables, images, numbered_keys(keys, 0), method="observe")

    def add(total: Array, number: Array) -> tuple[Array, None]:
        latents = model.apply(
            variables, values, numbered_keys(keys, number), chunk, context, method="infer"
        )
        likelihood = model.apply(variables, latents.z, context, method="likelihood")
        log_weights = likelihood.log_prob(values) + latents.log_ratio()
        return jnp.logaddexp(total, jax.nn.logsumexp(log_weights, axis=0)), None

    start = jnp.full(images.shape[0], -jnp.inf)
    total = jax.lax.scan(add, start, jnp.arange(1, samples // chunk + 1))[0]
    return total - math.log(samples) + log_det


def numbered_keys(keys: Array, number: Array | int) -> Array:
    """Makes a key for each row, other ones for each number."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)
