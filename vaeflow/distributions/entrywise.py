"""What distributions of independent entries with logits share."""

from __future__ import annotations

from typing import ClassVar

import distrax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Entrywise(distrax.Distribution):
    """Independent entries, each with its logits, in float32 or wider.

    Shapes: logits are ``[*batch, *event, *own]``, where the event has `event_ndims` axes and each
    entry `own_ndims` axes of its own.
    """

    own_ndims: ClassVar[int] = 0

    def __init__(self, logits: Float[Array, "*batch_event_and_own"], event_ndims: int):
        """Keeps the logits.

        Args:
          logits: The logits.
          event_ndims: Number of axes that make an event.
        """
        super().__init__()
        self._logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        self._event_ndims = event_ndims

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self._entries[len(self._entries) - self._event_ndims :]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of distributions."""
        return self._entries[: len(self._entries) - self._event_ndims]

    @property
    def dtype(self):
        """Type of the samples."""
        return self._logits.dtype

    @property
    def _entries(self) -> tuple[int, ...]:
        return self._logits.shape[: self._logits.ndim - self.own_ndims]
