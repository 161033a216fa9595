"""Increasing networks of each entry."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors.amortised import broadcasts_to
from vaeflow.bijectors.base import Bijector, sum_event
from vaeflow.bijectors.numerical import solve_monotone

SMALLEST = 1e-3
"""Least slope of a unit."""


class MonotoneNetwork(Bijector):
    """Sends each entry through a network of one hidden layer that only rises.

        y = logit(sum_j w_j sigmoid(a_j x + b_j)),   w = softmax(weights),   a_j > 0.

    As a mixture of logistic distributions it takes its entry to the logistic scale. It rises over
    the whole real line: far out it is a line with the smallest slope of its units. Values and log
    slopes are computed from logarithms of sigmoids alone, and stay finite wherever sigmoids are 0
    or 1 in floating point.

    Forward is the cheap direction. The inverse is found by `solve_monotone`, with NaN where it
    fails. log|det dy/dx| = sum of log dy/dx over the event; it is float32 or wider.

    Shapes: `weights`, `slopes` and `offsets` are ``[*parameters, units]``; ``[*parameters]``
    broadcasts against ``[*batch, *event]``.

    Source: Huang, Krueger, Lacoste & Courville 2018, "Neural autoregressive flows", section 3.1
    (deep sigmoidal flow, one layer).
    """

    def __init__(
        self,
        weights: Float[Array, "*parameters units"],
        slopes: Float[Array, "*parameters units"],
        offsets: Float[Array, "*parameters units"],
        event_ndims: int = 1,
    ):
        """Builds the network.

        Args:
          weights: Logits of the weights w.
          slopes: The slopes a before softplus, shifted so that zero gives 1.
          offsets: The offsets b.
          event_ndims: Number of trailing axes that make an event.

        Raises:
          ValueError: If the shapes of the parameters differ, or there are no units.
        """
        super().__init__(event_ndims_in=event_ndims)
        self.weights, self.slopes, self.offsets = map(jnp.asarray, (weights, slopes, offsets))
        shape = self.weights.shape
        if not shape or not shape[-1] or not shape == self.slopes.shape == self.offsets.shape:
            raise ValueError(
                "weights, slopes and offsets must have one shape [*batch, units] with at least one "
                f"unit, got {shape}, {self.slopes.shape} and {self.offsets.shape}"
            )

    def _prepared(self, values: Array) -> tuple[Array, tuple[Array, Array, Array]]:
        parameters = self.weights.shape[:-1]
        if not broadcasts_to(parameters, values.shape):
            raise ValueError(
                f"MonotoneNetwork: parameters of shape {parameters} don't broadcast to the input "
                f"of shape {values.shape}"
            )
        weights, slopes, offsets = (
            leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
            for leaf in (self.weights, self.slopes, self.offsets)
        )
        slopes = SMALLEST + jax.nn.softplus(slopes + jnp.log(jnp.expm1(1 - SMALLEST)))
        units = jax.nn.log_softmax(weights, axis=-1), slopes, offsets
        return values.astype(jnp.promote_types(values.dtype, jnp.float32)), units

    def _log_det(self, units: tuple[Array, Array, Array], x: Array) -> Array:
        log_weights, slopes, _ = units
        below, above = _log_shares(units, x)
        # Each unit's part of what is below and of what is above, so that nothing large cancels.
        parts = jax.nn.log_softmax(below, axis=-1) + jax.nn.log_softmax(above, axis=-1)
        log_slope = jax.nn.logsumexp(jnp.log(slopes) - log_weights + parts, axis=-1)
        return sum_event(log_slope, self.event_ndims_in)

    def _forward(self, x):
        x, units = self._prepared(x)
        return _raised(units, x), self._log_det(units, x)

    def _inverse(self, y):
        y, units = self._prepared(y)
        x = solve_monotone(_raised, units, y)
        return x, -self._log_det(units, x)


def _log_shares(units: tuple[Array, Array, Array], x: Array) -> tuple[Array, Array]:
    log_weights, slopes, offsets = units
    place = slopes * x[..., None] + offsets
    return log_weights + jax.nn.log_sigmoid(place), log_weights + jax.nn.log_sigmoid(-place)


def _raised(units: tuple[Array, Array, Array], x: Array) -> Array:
    below, above = _log_shares(units, x)
    return jax.nn.logsumexp(below, axis=-1) - jax.nn.logsumexp(above, axis=-1)
