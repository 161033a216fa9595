"""Uniform bases."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from vaeflow.distributions import UniformBox


class BoxBase(nn.Module):
    """A uniform distribution on a box that isn't learned.

    Attributes:
      event_shape: Shape of a sample.
      low: Lower end of the interval of each entry.
      high: Upper end, above `low`.
    """

    event_shape: tuple[int, ...]
    low: float = 0.0
    high: float = 1.0

    needs_labels = False

    def __call__(
        self,
        context: Array | None = None,
        *,
        batch_shape: tuple[int, ...] = (),
        temperature: float = 1.0,
    ) -> UniformBox:
        """Builds the distribution; the context is ignored.

        Args:
          context: Anything.
          batch_shape: Batch axes of the distribution.
          temperature: Factor by which the box shrinks about its middle.

        Raises:
          ValueError: If `low` isn't below `high`.
        """
        del context
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        shape = (*batch_shape, *self.event_shape)
        low, high = (
            jnp.broadcast_to(jnp.float32(middle + sign * temperature * half), shape)
            for sign in (-1, 1)
        )
        return UniformBox(low, high, len(self.event_shape))
