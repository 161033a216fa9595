"""Attention to the positions up to one's own, over a whole sequence or one piece at a time."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Cache = tuple[Array, Array]


class CausalAttention(nn.Module):
    """Averages values of the positions up to one's own, weighted by how keys answer a query.

    Position p gets, of each head, sum_(q <= p) w_pq v_q with w_p = softmax_q(k_q . u_p / sqrt(d)),
    where u_p is a linear function of its query, and k_q and v_q of the content at q, each with d
    entries a head.

    A sequence may come in pieces: a cache then remembers the keys and values of those before.

    Source: Vaswani et al. 2017, "Attention is all you need", section 3.2, masked as in their
    decoder.

    Attributes:
      features: Number of output channels, a multiple of the heads.
      heads: Number of heads.
      dtype: Type to compute in; weights are float32 or wider.
    """

    features: int
    heads: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "batch position query"],
        content: Float[Array, "batch position channel"],
        cache: Cache | None = None,
        start: Array | int = 0,
    ) -> tuple[Float[Array, "batch position feature"], Cache | None]:
        """Attends from the positions of a sequence, or of a piece of one.

        Args:
          queries: What asks at each position: of the whole sequence, or of the piece that follows
            those in the cache.
          content: What is there to be found at the same positions.
          cache: From `empty_cache` or the piece before; None where this is the whole sequence.
          start: Where the piece begins.

        Returns:
          The averages, and the cache with the piece in it, or None.

        Raises:
          ValueError: If the features aren't a multiple of the heads.
        """
        if self.features % self.heads:
            raise ValueError(
                f"features must be a multiple of the heads, got {self.features} and {self.heads}"
            )

        def projected(x: Array, name: str) -> Array:
            x = nn.Dense(self.features, use_bias=False, dtype=self.dtype, name=name)(x)
            return x.reshape(*x.shape[:-1], self.heads, -1)

        query = projected(queries, "query")
        key, value = projected(content, "key"), projected(content, "value")
        if cache is not None:
            key, value = cache = tuple(
                jax.lax.dynamic_update_slice_in_dim(whole, piece, start, 1)
                for whole, piece in zip(cache, (key, value), strict=True)
            )
        own = start + jnp.arange(query.shape[1])
        reads = jnp.arange(key.shape[1]) <= own[:, None]
        found = jax.nn.dot_product_attention(query, key, value, mask=reads[None, None])
        return found.reshape(*queries.shape[:-1], self.features), cache

    @nn.nowrap
    def empty_cache(self, batch: int, positions: int) -> Cache:
        """A cache of no piece of sequences of so many positions."""
        shape = (batch, positions, self.heads, self.features // self.heads)
        return jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype)
