"""Maps onto the positive numbers."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vaeflow.bijectors.base import Bijector, sum_event

SMALLEST = 1e-30
"""Values below this, zero and negative ones too, are taken as equal to it by the inverses."""


class Exp(Bijector):
    """Maps each entry onto the positive numbers: y = exp(x).

    log|det dy/dx| = sum of x over the event. Inverse is the logarithm; values below 1e-30, zero and
    negative ones among them, are taken as 1e-30, so it is finite everywhere, and what isn't in the
    domain lies 69 below zero, where noise has next to no density. Forward stops at 1e30. Both
    directions cost the same, and give float32 or wider.

    Shapes: ``[*batch, *event]`` both ways.
    """

    def __init__(self, event_ndims: int = 1):
        """Builds the map.

        Args:
          event_ndims: Number of trailing axes that make an event.
        """
        super().__init__(event_ndims_in=event_ndims)

    def _forward(self, x):
        x = _wide(x)
        y = jnp.exp(jnp.minimum(x, -math.log(SMALLEST)))
        return y, sum_event(x, self.event_ndims_in)

    def _inverse(self, y):
        x = jnp.log(jnp.maximum(_wide(y), SMALLEST))
        return x, -sum_event(x, self.event_ndims_in)


class Softplus(Bijector):
    """Maps each entry onto the positive numbers: y = log(1 + exp(x)), which nears x far above zero.

    log|det dy/dx| = sum of log sigmoid(x) over the event. Inverse is log(exp(y) - 1); values below
    1e-30, zero and negative ones among them, are taken as 1e-30, as by `Exp`. Both directions cost
    the same, and give float32 or wider.

    Shapes: ``[*batch, *event]`` both ways.
    """

    def __init__(self, event_ndims: int = 1):
        """Builds the map.

        Args:
          event_ndims: Number of trailing axes that make an event.
        """
        super().__init__(event_ndims_in=event_ndims)

    def _forward(self, x):
        x = _wide(x)
        return jax.nn.softplus(x), sum_event(jax.nn.log_sigmoid(x), self.event_ndims_in)

    def _inverse(self, y):
        y = jnp.maximum(_wide(y), SMALLEST)
        # exp(y) itself would overflow above 88, and lose what it adds to 1 near zero.
        x = y + jnp.log(-jnp.expm1(-y))
        return x, -sum_event(jax.nn.log_sigmoid(x), self.event_ndims_in)


def _wide(values: Array) -> Array:
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))
