"""Nearest-neighbour search over a codebook in bounded memory, and k-means clustering."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vaeflow.quantizers.moving_average import sum_by_code

BLOCK = 1024
"""Most codes that distances are computed to at a time."""

GROUP = 32
"""Codes whose least score is computed together."""


def nearest_codes(
    x: Float[Array, "*batch channel"], codes: Float[Array, "code channel"]
) -> Int[Array, "*batch"]:
    """Finds argmin_k ||x - e_k||^2, the first of equal ones.

    By the order of ||e_k||^2 / 2 - x e_k, without ||x||^2, which all have in common. Both are taken
    from the mean of the codes, which changes no distance but its rounding: an offset that all share
    would otherwise cost digits. No more than `BLOCK` distances a vector are in memory at a time.

    Args:
      x: Vectors, of the type to compute in.
      codes: The codebook.
    """
    count, channels = codes.shape
    mean = jnp.mean(codes, axis=0)
    x, codes = x - mean, codes - mean
    halves = 0.5 * jnp.sum(jnp.square(codes), axis=-1)
    if count <= BLOCK:
        return _nearest_of_block(x, codes, halves)[1]
    missing = -count % BLOCK
    codes = jnp.pad(codes, ((0, missing), (0, 0)))
    halves = jnp.pad(halves, (0, missing), constant_values=jnp.inf)

    def step(best: tuple[Array, Array], block: tuple[Array, ...]) -> tuple[tuple, None]:
        codes, halves, start = block
        score, index = _nearest_of_block(x, codes, halves)
        less = score < best[0]
        return (jnp.where(less, score, best[0]), jnp.where(less, start + index, best[1])), None

    blocks = (
        codes.reshape(-1, BLOCK, channels),
        halves.reshape(-1, BLOCK),
        jnp.arange(0, len(codes), BLOCK, dtype=jnp.int32),
    )
    first = jnp.full(x.shape[:-1], jnp.inf, x.dtype), jnp.zeros(x.shape[:-1], jnp.int32)
    return jax.lax.scan(step, first, blocks)[0][1]


def _nearest_of_block(x: Array, codes: Array, halves: Array) -> tuple[Array, Array]:
    # Accelerators would otherwise multiply float32 in fewer bits.
    return min_and_argmin(halves - jnp.matmul(x, codes.T, precision=jax.lax.Precision.HIGHEST))


def min_and_argmin(
    scores: Float[Array, "*batch code"],
) -> tuple[Float[Array, "*batch"], Int[Array, "*batch"]]:
    """Computes the minimum over codes, and the first index that has it.

    On CPUs the place of a minimum costs far more than its value, so it is looked for in one group
    of codes alone, the first whose minimum is least.
    """
    missing = -scores.shape[-1] % GROUP
    widths = [(0, 0)] * (scores.ndim - 1) + [(0, missing)]
    scores = jnp.pad(scores, widths, constant_values=jnp.inf)
    scores = scores.reshape(*scores.shape[:-1], scores.shape[-1] // GROUP, GROUP)
    group = jnp.argmin(jnp.min(scores, axis=-1), axis=-1)
    scores = jnp.take_along_axis(scores, group[..., None, None], axis=-2)[..., 0, :]
    index = group * GROUP + jnp.argmin(scores, axis=-1)
    return jnp.min(scores, axis=-1), index.astype(jnp.int32)


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
        sums = sum_by_code(vectors, jnp.where(finite, nearest_codes(vectors, means), codes), codes)
        updated = sums.sums / jnp.maximum(sums.counts, 1)[:, None]
        return jnp.where((sums.counts > 0)[:, None], project(updated), means)

    return jax.lax.fori_loop(0, iterations, step, vectors[first])
