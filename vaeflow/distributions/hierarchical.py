"""Hierarchical priors: Markov chains of latent levels, as one distribution of vectors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.arrays import check_event_shape

Conditional = Callable[[Array], distrax.Distribution]


class HierarchicalPrior(distrax.Distribution):
    """A Markov chain of n levels: p(z) = p(z_n) prod_(i < n) p(z_i | z_(i+1)), as one vector.

    Shapes: events are ``[dimension]``: z_1, sampled last, comes first, z_n last.
    """

    def __init__(self, top: distrax.Distribution, conditionals: Sequence[Conditional] = ()):
        """Builds the distribution.

        Args:
          top: p(z_n), of events ``[size]``.
          conditionals: For each level below, from the lowest up: a pytree that maps values of the
            level above, ``[*batch, size]``, to p(z_i | .), with their batch axes.
        """
        super().__init__()
        self._top, self._conditionals = top, tuple(conditionals)

    def _sizes(self) -> tuple[int, ...]:
        """Sizes of the levels, from the lowest up."""
        sizes = list(self._top.event_shape)
        for conditional in reversed(self._conditionals):
            above = jax.ShapeDtypeStruct((*self.batch_shape, sizes[0]), self.dtype)
            below = jax.eval_shape(
                lambda above, p=conditional: jnp.zeros(p(above).event_shape), above
            )
            sizes.insert(0, below.shape[0])
        return tuple(sizes)

    def split(self, value: Float[Array, "*batch dimension"]) -> list[Float[Array, "*batch part"]]:
        """Splits a vector into levels, from the lowest up.

        Raises:
          ValueError: If the vector has another number of dimensions.
        """
        sizes = self._sizes()
        check_event_shape("HierarchicalPrior", value.shape, (sum(sizes),))
        return jnp.split(value, list(itertools.accumulate(sizes))[:-1], axis=-1)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return (sum(self._sizes()),)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of distributions: that of the top."""
        return self._top.batch_shape

    @property
    def dtype(self):
        """Type of the samples."""
        return self._top.dtype

    def log_prob(self, value: Float[Array, "*batch dimension"]) -> Float[Array, "*batch"]:
        """Computes the log-density in nats."""
        batch = jnp.broadcast_shapes(value.shape[:-1], self.batch_shape)
        levels = self.split(jnp.broadcast_to(value, (*batch, value.shape[-1])))
        total = self._top.log_prob(levels[-1])
        for conditional, z, above in zip(self._conditionals, levels, levels[1:], strict=False):
            total = total + conditional(above).log_prob(z)
        return total

    def _sample_n(self, key: Array, n: int) -> Array:
        keys = jax.random.split(key, len(self._conditionals) + 1)
        levels = [self._top.sample(seed=keys[-1], sample_shape=n)]
        for conditional, key in zip(reversed(self._conditionals), keys[:-1], strict=True):
            levels.insert(0, conditional(levels[0]).sample(seed=key))
        return jnp.concatenate(levels, axis=-1)
