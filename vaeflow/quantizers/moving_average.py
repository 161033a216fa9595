"""Codebooks learned by exponential moving averages (van den Oord et al. 2017, appendix A.1)."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vaeflow._util.arrays import Axis


class CodeSums(NamedTuple):
    """Number and sum of the vectors of each code.

    Attributes:
      counts: ``[*stages, code]``.
      sums: ``[*stages, code, channel]``.
    """

    counts: Float[Array, "*stages code"]
    sums: Float[Array, "*stages code channel"]


@dataclasses.dataclass(frozen=True)
class MovingAverage:
    """Codes learned without gradients, as the means of their vectors over recent batches.

    With n_k vectors of sum s_k nearest to code k in the full batch, N_k <- g N_k + (1 - g) n_k,
    m_k <- g m_k + (1 - g) s_k and e_k = m_k / N'_k, where N'_k = (N_k + eps) / (sum N + K eps)
    times sum N avoids a division by zero for codes that are hardly used.

    A code whose N_k is below a share of even use, sum N / K, is dead. It restarts at a vector of
    the batch, chosen at random: N_k becomes sum N / K and m_k that times the vector, which
    discards its past.

    Source: van den Oord, Vinyals & Kavukcuoglu 2017, "Neural discrete representation learning",
    appendix A.1; Razavi, van den Oord & Vinyals 2019, "Generating diverse high-fidelity images with
    VQ-VAE-2", section 2; Dhariwal et al. 2020, "Jukebox", section 3.1 (restarts).

    Attributes:
      decay: g, in [0, 1).
      epsilon: eps, above 0.
      restart_below: Share of even use below which a code restarts, in [0, 1); at 0 none does.
    """

    decay: float = 0.99
    epsilon: float = 1e-5
    restart_below: float = 0.01

    def __post_init__(self):
        for name in ("decay", "restart_below"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"MovingAverage: {name} must be in [0, 1), got {getattr(self, name)}"
                )
        if not self.epsilon > 0:
            raise ValueError(f"MovingAverage: epsilon must be above 0, got {self.epsilon}")

    def initial(self, codes: Float[Array, "*stages code channel"]) -> CodeSums:
        """Returns the sums of given codes, each with the count 1."""
        return CodeSums(jnp.ones(codes.shape[:-1], codes.dtype), codes)

    def codes(self, sums: CodeSums) -> Float[Array, "*stages code channel"]:
        """Computes the codes e."""
        total = jnp.sum(sums.counts, axis=-1, keepdims=True)
        smooth = sums.counts + self.epsilon
        counts = smooth / jnp.sum(smooth, axis=-1, keepdims=True) * total
        return sums.sums / counts[..., None]

    def updated(
        self, before: CodeSums, assigned: CodeSums, candidates: CodeSums | None
    ) -> CodeSums:
        """Returns the averages of one codebook after a batch.

        Args:
          before: N and m.
          assigned: n and s of the batch.
          candidates: The vectors at which dead codes restart, in their order: element i has the
            count 1 and the vector as its sum, or another count if there is no such vector. None for
            no restarts.
        """
        new = 1 - self.decay
        after = CodeSums(
            self.decay * before.counts + new * assigned.counts,
            self.decay * before.sums + new * assigned.sums,
        )
        if candidates is None:
            return after
        even = jnp.mean(after.counts)
        dead = after.counts < self.restart_below * even
        rank = jnp.maximum(jnp.cumsum(dead) - 1, 0)
        restarts = dead & (candidates.counts[rank] == 1)
        return CodeSums(
            jnp.where(restarts, even, after.counts),
            jnp.where(restarts[:, None], even * candidates.sums[rank], after.sums),
        )


def sum_by_code(
    vectors: Float[Array, "*batch channel"], indices: Int[Array, "*batch"], num_codes: int
) -> CodeSums:
    """Adds up vectors by code; an index of `num_codes` belongs to none."""
    vectors, indices = vectors.reshape(-1, vectors.shape[-1]), indices.reshape(-1)
    counts = jnp.zeros(num_codes, vectors.dtype).at[indices].add(1, mode="drop")
    sums = jnp.zeros((num_codes, vectors.shape[-1]), vectors.dtype)
    return CodeSums(counts, sums.at[indices].add(vectors, mode="drop"))


def choose_latents(
    keys: Array, finite: Bool[Array, "batch position"], num_codes: int, axis: Axis
) -> tuple[Int[Array, " chosen"], Int[Array, " chosen"]]:
    """Chooses latents of the full batch at random, one for each code as far as they go.

    They are those with the largest noise, sampled from the key of their row: the same ones however
    the batch is divided. Only the noise is gathered from other devices.

    Args:
      keys: A typed key for each row, ``[batch]``.
      finite: Latents that may be chosen.
      num_codes: Number of latents to choose.
      axis: How the batch is divided.

    Returns:
      Indices of latents of this device, rows and positions being one axis, and the rank of each
      among the chosen ones of the full batch; a rank of `num_codes` or above if it isn't one of
      them.
    """
    positions = finite.shape[1]
    noise = jax.vmap(lambda key: jax.random.bits(key, (positions,)))(keys)
    noise = jnp.where(finite, jnp.maximum(noise, 1), 0).reshape(-1)
    best, places = jax.lax.top_k(noise, min(num_codes, noise.shape[0]))
    every = jnp.sort(axis.gather(best))
    # The number of larger ones. (Of two latents with the same 32 bits, neither is a candidate.)
    ranks = every.shape[0] - jnp.searchsorted(every, best, side="right")
    return places, jnp.where(best > 0, ranks, num_codes)
