"""What flows that end another flow have in common."""

from __future__ import annotations

import flax.linen as nn


class Wrapped(nn.Module):
    """A flow around another, of the same shapes and contexts.

    Attributes:
      flow: A module of this package.
    """

    flow: nn.Module

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of the data."""
        return self.flow.event_shape

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the noise."""
        return self.flow.noise_shape

    @property
    def context_ndims(self) -> int:
        """Number of trailing axes that make a context."""
        return self.flow.context_ndims

    @property
    def classes(self) -> int | None:
        """Number of classes where the context is a label."""
        return self.flow.classes
