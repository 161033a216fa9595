"""Clusters of the first batch."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vaeflow.quantizers.moving_average import sum_by_code
from vaeflow.quantizers.nearest import nearest


def k_means(
    key: Array,
    vectors: Float[Array, "row channel"],
    finite: Bool[Array, " row"],
    codes: int,
    iterations: int,
    project: Callable[[Array], Array],
) -> Float[Array, "code channel"]:
    """Finds means of clusters: from distinct random rows, each becomes the mean of those nearest.

    A mean that no row is nearest to stays where it is.

    Source: Lloyd 1982, "Least squares quantization in PCM"; Zeghidour et al. 2021, "SoundStream",
    section III.C (of the first batch).

    Args:
      key: A typed key, for the choice of rows.
      vectors: The rows.
      finite: Which rows count.
      codes: Number of means.
      iterations: Number of times that the means are computed.
      project: Puts vectors where means belong, such as on the sphere.

    Raises:
      ValueError: If there are more codes than rows.
    """
    rows = vectors.shape[0]
    if codes > rows:
        raise ValueError(
            f"the first batch must have a latent for each of the {codes} codes, got {rows} latents"
        )
    noise = jnp.where(finite, jnp.maximum(jax.random.bits(key, (rows,)), 1), 0)
    order = jax.lax.top_k(noise, codes)[1]
    # Where rows don't count, the others are taken again.
    first = order[jnp.arange(codes) % jnp.maximum(jnp.sum(finite), 1)]

    def step(_: Array, means: Array) -> Array:
        sums = sum_by_code(vectors, jnp.where(finite, nearest(vectors, means), codes), codes)
        found = sums.sums / jnp.maximum(sums.counts, 1)[:, None]
        return jnp.where((sums.counts > 0)[:, None], project(found), means)

    return jax.lax.fori_loop(0, iterations, step, vectors[first])
