"""The sigmoid, onto an interval, and the logit, back from it."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from vaeflow.bijectors.base import Bijector, sum_event
from vaeflow.bijectors.compose import Inverse

EDGE = 1e-6
"""Distance from the ends of the unit interval below which the inverse takes values as equal."""


class Sigmoid(Bijector):
    """Maps each entry onto an interval: y = lower + (upper - lower) sigmoid(x).

    log|det dy/dx| = sum of log(upper - lower) + log sigmoid(x) + log sigmoid(-x) over the event.
    Inverse is the logit of the place in the interval; values within a millionth of its ends, and
    beyond them, are taken as that close, so it is finite everywhere. Both directions cost the same.

    Shapes: ``[*batch, *event]`` both ways.

    Source: Dinh, Sohl-Dickstein & Bengio 2017, section 4.1, whose logit makes images unbounded.
    """

    static_fields = ("lower", "upper")

    def __init__(self, lower: float = 0.0, upper: float = 1.0, event_ndims: int = 1):
        """Builds the map.

        Args:
          lower: Lower end of the interval.
          upper: Upper end of the interval.
          event_ndims: Number of trailing axes that make an event.

        Raises:
          ValueError: If `upper` isn't above `lower`.
        """
        if not lower < upper:
            raise ValueError(f"upper must be above lower={lower}, got {upper}")
        super().__init__(event_ndims_in=event_ndims)
        self.lower = float(lower)
        self.upper = float(upper)

    def _log_det(self, x):
        slope = jax.nn.log_sigmoid(x) + jax.nn.log_sigmoid(-x) + math.log(self.upper - self.lower)
        return sum_event(slope, self.event_ndims_in)

    def _forward(self, x):
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        y = self.lower + (self.upper - self.lower) * jax.nn.sigmoid(x)
        return y, self._log_det(x)

    def _inverse(self, y):
        # Near an end a narrower type can't tell values apart.
        y = y.astype(jnp.promote_types(y.dtype, jnp.float32))
        place = jnp.clip((y - self.lower) / (self.upper - self.lower), EDGE, 1 - EDGE)
        x = jnp.log(place) - jnp.log1p(-place)
        return x, -self._log_det(x)


class Logit(Inverse):
    """Maps each entry of an interval onto the reals: y = log(p) - log(1 - p).

    p = (x - lower) / (upper - lower). The inverse of `Sigmoid`: values within a millionth of the
    ends, and beyond them, are taken as that close. Both directions cost the same.

    Shapes: ``[*batch, *event]`` both ways.
    """

    def __init__(self, lower: float = 0.0, upper: float = 1.0, event_ndims: int = 1):
        """Builds the map.

        Args:
          lower: Lower end of the interval.
          upper: Upper end of the interval.
          event_ndims: Number of trailing axes that make an event.

        Raises:
          ValueError: If `upper` isn't above `lower`.
        """
        super().__init__(Sigmoid(lower, upper, event_ndims))
