"""Affine maps of each entry of an event."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors.base import Bijector, sum_event


class ElementwiseAffine(Bijector):
    """Scales and shifts each entry: y = x exp(log_scale) + shift.

    log|det dy/dx| = sum of log_scale over the event. Both directions cost the same.

    Shapes: `shift` and `log_scale` broadcast against ``[*batch, *event]``; leading batch axes make
    the map depend on the example.
    """

    def __init__(
        self,
        shift: Float[Array, "*parameters"],
        log_scale: Float[Array, "*parameters"],
        event_ndims: int = 1,
    ):
        """Builds the map.

        Args:
          shift: Added to each entry after scaling.
          log_scale: Logarithm of the positive factor of each entry.
          event_ndims: Number of trailing axes that make an event.
        """
        super().__init__(event_ndims_in=event_ndims, is_constant_jacobian=True)
        self.shift = jnp.asarray(shift)
        self.log_scale = jnp.asarray(log_scale)

    def _broadcast(self, x: Array) -> tuple[Array, Array]:
        try:
            return jnp.broadcast_to(self.shift, x.shape), jnp.broadcast_to(self.log_scale, x.shape)
        except ValueError:
            raise ValueError(
                f"ElementwiseAffine: shift of shape {self.shift.shape} and log_scale of shape "
                f"{self.log_scale.shape} don't broadcast to the input of shape {x.shape}"
            ) from None

    def _forward(self, x):
        shift, log_scale = self._broadcast(x)
        return x * jnp.exp(log_scale) + shift, sum_event(log_scale, self.event_ndims_in)

    def _inverse(self, y):
        shift, log_scale = self._broadcast(y)
        return (y - shift) * jnp.exp(-log_scale), -sum_event(log_scale, self.event_ndims_in)
