"""Elementwise bijectors: affine, activation normalization, exp, softplus, sigmoid and logit.

y_i = f(x_i), so log|det dy/dx| is the sum of log|f'(x_i)|.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.arrays import check_event_shape, sum_event
from vaeflow.bijectors.base import Bijector
from vaeflow.bijectors.compose import Inverse

SMALLEST_POSITIVE = 1e-30
"""Smaller values, zero and negative ones too, are clipped to this by `Exp` and `Softplus`."""

EDGE = 1e-6
"""Positions in the unit interval are clipped to this distance from its ends by `Sigmoid`."""


class ElementwiseAffine(Bijector):
    """Affine map of each dimension: y = x exp(log_scale) + shift.

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
          shift: Added to each dimension after scaling.
          log_scale: Logarithm of the positive factor of each dimension.
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


class ActNorm(Bijector):
    """Activation normalization of each channel: y = (x + shift) exp(log_scale).

    log|det dy/dx| = P sum_c log_scale_c, where P is the number of positions (height times width
    for images, 1 for vectors). Both directions cost the same.

    Shapes: x is ``[*batch, *positions, channel]``; `shift` and `log_scale` are ``[channel]``.

    Source: Kingma & Dhariwal 2018, "Glow: Generative Flow with Invertible 1x1 Convolutions",
    section 3.1. Parameters that standardise a batch come from
    `vaeflow.nn.normalization.actnorm_parameters`.
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


class Exp(Bijector):
    """Exponential of each dimension, onto the positive numbers: y = exp(x).

    log|det dy/dx| = sum of x over the event. Inverse is the logarithm of values clipped to at
    least 1e-30: it is finite everywhere, and takes values outside the domain to -69, where noise
    has next to no density. Forward is clipped to at most 1e30. Both directions cost the same and
    return float32 or wider.

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
        y = jnp.exp(jnp.minimum(x, -math.log(SMALLEST_POSITIVE)))
        return y, sum_event(x, self.event_ndims_in)

    def _inverse(self, y):
        x = jnp.log(jnp.maximum(_wide(y), SMALLEST_POSITIVE))
        return x, -sum_event(x, self.event_ndims_in)


class Softplus(Bijector):
    """Softplus of each dimension, onto the positive numbers: y = log(1 + exp(x)).

    log|det dy/dx| = sum of log sigmoid(x) over the event. Far above zero y nears x. Inverse
    is log(exp(y) - 1) of values clipped to at least 1e-30, as by `Exp`. Both directions cost the
    same and return float32 or wider.

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
        y = jnp.maximum(_wide(y), SMALLEST_POSITIVE)
        # exp(y) - 1 would overflow above 88, and cancel near zero.
        x = y + jnp.log(-jnp.expm1(-y))
        return x, -sum_event(jax.nn.log_sigmoid(x), self.event_ndims_in)


class Sigmoid(Bijector):
    """Sigmoid of each dimension, onto an interval: y = lower + (upper - lower) sigmoid(x).

    log|det dy/dx| = sum of log(upper - lower) + log sigmoid(x) + log sigmoid(-x) over the event.
    Inverse is the logit of the relative position in the interval, clipped to a distance of 1e-6
    from its ends, so it is finite everywhere. Both directions cost the same.

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
        # A narrower type can't resolve values near an end.
        y = y.astype(jnp.promote_types(y.dtype, jnp.float32))
        position = jnp.clip((y - self.lower) / (self.upper - self.lower), EDGE, 1 - EDGE)
        x = jnp.log(position) - jnp.log1p(-position)
        return x, -self._log_det(x)


class Logit(Inverse):
    """Logit of each dimension, from an interval onto the reals: y = log(p) - log(1 - p).

    p = (x - lower) / (upper - lower). The inverse of `Sigmoid`: p is clipped to a distance of
    1e-6 from 0 and 1. Both directions cost the same.

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


def _wide(values: Array) -> Array:
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))
