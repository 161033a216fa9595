"""Activation normalization."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors.base import Bijector, check_event_shape, sum_event

SMALLEST_DEVIATION = 1e-4
"""Channels that vary less than this are scaled as if they varied by this much."""


class ActNorm(Bijector):
    """Shifts and scales each channel: y = (x + shift) exp(log_scale).

    log|det dy/dx| = P sum_c log_scale_c, where P is the number of positions (height times width
    for images, 1 for vectors). Both directions cost the same.

    Shapes: x is ``[*batch, *positions, channel]``; `shift` and `log_scale` are ``[channel]``.

    Source: Kingma & Dhariwal 2018, "Glow: Generative Flow with Invertible 1x1 Convolutions",
    section 3.1. Parameters that standardise a batch come from `actnorm_parameters`.
    """

    def __init__(
        self,
        shift: Float[Array, " channel"],
        log_scale: Float[Array, " channel"],
        event_ndims: int = 3,
    ):
        """Builds the map.

        Args:
          shift: Added to each channel before scaling.
          log_scale: Logarithm of the factor of each channel.
          event_ndims: Number of trailing axes that make an event: 3 for images, 1 for vectors.
        """
        super().__init__(event_ndims_in=event_ndims, is_constant_jacobian=True)
        self.shift = jnp.asarray(shift)
        self.log_scale = jnp.asarray(log_scale)

    def _log_det(self, x: Array) -> Array:
        check_event_shape(self.name, x.shape, self.shift.shape[-1:])
        batch = x.shape[: x.ndim - self.event_ndims_in]
        positions = math.prod(x.shape[len(batch) : -1])
        return jnp.broadcast_to(positions * sum_event(self.log_scale, 1), batch)

    def _forward(self, x):
        log_det = self._log_det(x)
        return (x + self.shift) * jnp.exp(self.log_scale), log_det

    def _inverse(self, y):
        log_det = self._log_det(y)
        return y * jnp.exp(-self.log_scale) - self.shift, -log_det


def actnorm_parameters(
    data: Float[Array, "*rows channel"],
) -> tuple[Float[Array, " channel"], Float[Array, " channel"]]:
    """Computes the `ActNorm` parameters that give each channel mean zero and variance one.

    Args:
      data: A batch; every axis but the last is averaged over.

    Returns:
      ``shift`` and ``log_scale``, each of shape ``[channel]``, float32 or wider.
    """
    data = data.astype(jnp.promote_types(data.dtype, jnp.float32))
    rows = tuple(range(data.ndim - 1))
    deviation = jnp.maximum(jnp.std(data, axis=rows), SMALLEST_DEVIATION)
    return -jnp.mean(data, axis=rows), -jnp.log(deviation)
