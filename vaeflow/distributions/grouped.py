"""Vectors made of independent groups of entries."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Grouped(distrax.Distribution):
    """Independent groups of entries, one after the other in one vector.

    log p(z) = sum_g log p_g(z^g).

    Shapes: events are ``[entry]``, the sum of the groups' sizes; all groups have equal batch axes.
    """

    def __init__(self, groups: Mapping[str, distrax.Distribution]):
        """Builds the distribution.

        Args:
          groups: Distributions of vectors by name, in the order of their entries.

        Raises:
          ValueError: If there is none, or they differ in their batch axes.
        """
        super().__init__()
        batches = {distribution.batch_shape for distribution in groups.values()}
        if len(batches) != 1:
            shapes = {name: part.batch_shape for name, part in groups.items()}
            raise ValueError(f"groups must share their batch axes, got {shapes}")
        # Kept apart from each other's names: trees sort the keys of dicts.
        self._names = tuple(groups)
        self._parts = tuple(groups.values())

    @property
    def groups(self) -> dict[str, distrax.Distribution]:
        """The distributions by name, in order."""
        return dict(zip(self._names, self._parts, strict=True))

    def split(self, value: Float[Array, "*batch entry"]) -> dict[str, Float[Array, "*batch part"]]:
        """Takes a vector apart, by name of the group.

        Raises:
          ValueError: If the vector has another number of entries.
        """
        if value.shape[-1:] != self.event_shape:
            raise ValueError(
                f"value must hold events of shape {self.event_shape}, got shape {value.shape}"
            )
        ends = list(itertools.accumulate(part.event_shape[0] for part in self._parts))
        pieces = jnp.split(value, ends[:-1], axis=-1)
        return dict(zip(self._names, pieces, strict=True))

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return (sum(part.event_shape[0] for part in self._parts),)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of distributions."""
        return self._parts[0].batch_shape

    @property
    def dtype(self):
        """Type of the samples."""
        return jnp.result_type(*(part.dtype for part in self._parts))

    def log_prob(self, value: Float[Array, "*batch entry"]) -> Float[Array, "*batch"]:
        """Computes the log-density in nats."""
        pieces = self.split(value)
        return sum(part.log_prob(pieces[name]) for name, part in self.groups.items())

    def mean(self) -> Float[Array, "*batch entry"]:
        """The means of the groups."""
        return jnp.concatenate([part.mean() for part in self._parts], axis=-1)

    def _sample_n(self, key: Array, n: int) -> Array:
        keys = jax.random.split(key, len(self._parts))
        parts = [
            part.sample(seed=key, sample_shape=n)
            for part, key in zip(self._parts, keys, strict=True)
        ]
        return jnp.concatenate(parts, axis=-1)
