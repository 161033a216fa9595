"""Elementwise bijectors: affine, activation normalization, exp, softplus, sigmoid and logit.

y_i = f(x_i), so log|det dy/dx| is the sum of log|f'(x_i)|.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vaeflow._util.arrays import check_event_shape, sum_event
from vaeflow.bijectors.base import Bijector
from vaeflow.bijectors.compose import Inverse

END_OF_POSITIVE = 1e-30
"""Zero itself is evaluated here by the inverses of `Exp` and `Softplus`."""

END_OF_INTERVAL = 1e-6
"""The ends of an interval are evaluated at this fraction of its length from them, by `Sigmoid`."""


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

    log|det dy/dx| = sum of x over the event. The log-determinant of the inverse is -inf outside the
    range, at negative numbers, and so is the density of whatever passes. Zero is evaluated at
    1e-30, since data may have been rounded to it. Forward is clipped to normal numbers of its type:
    in float32 an x beyond 87 counts as 87, of either sign. Both directions cost the same and return
    float32 or wider.

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
        x = jnp.clip(x, -_largest_logarithm(x.dtype), _largest_logarithm(x.dtype))
        return jnp.exp(x), sum_event(x, self.event_ndims_in)

    def _inverse(self, y):
        y, outside = _positive(y)
        x = jnp.log(y)
        return x, _in_range(-x, outside, self.event_ndims_in)


class Softplus(Bijector):
    """Softplus of each dimension, onto the positive numbers: y = log(1 + exp(x)).

    log|det dy/dx| = sum of log sigmoid(x) over the event. Far above zero y nears x. Inverse
    is log(exp(y) - 1). Values at the end of the range, beyond it, and too small for their type are
    treated as by `Exp`. Both directions cost the same and return float32 or wider.

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
        x = jnp.maximum(x, -_largest_logarithm(x.dtype))
        return jax.nn.softplus(x), sum_event(jax.nn.log_sigmoid(x), self.event_ndims_in)

    def _inverse(self, y):
        y, outside = _positive(y)
        # exp(y) - 1 would overflow above 88, and cancel near zero.
        x = y + jnp.log(-jnp.expm1(-y))
        return x, _in_range(-jax.nn.log_sigmoid(x), outside, self.event_ndims_in)


class Sigmoid(Bijector):
    """Sigmoid of each dimension, onto an interval: y = lower + (upper - lower) sigmoid(x).

    log|det dy/dx| = sum of log(y - lower) + log(upper - y) - log(upper - lower) over the event. The
    log-determinant of the inverse is -inf outside the interval, and so is the density of whatever
    passes. An end itself is evaluated at a millionth of the interval's length from it, since data
    may have been rounded to it, such as the black of images. Forward is clipped to the numbers of
    its type that are nearest to the ends, and x to match: where an end isn't zero, float32 can't
    tell an x beyond about 17 from its neighbours. Both directions cost the same and return float32
    or wider.

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
          ValueError: If the ends aren't finite, or have no float32 number between them.
        """
        super().__init__(event_ndims_in=event_ndims)
        self.lower = float(lower)
        self.upper = float(upper)
        if not math.isfinite(self.lower) or not math.isfinite(self.upper):
            raise ValueError(f"lower and upper must be finite, got {lower} and {upper}")
        lower, first, last, upper = self._ends(np.float32)
        if not lower < first <= last < upper:
            raise ValueError(f"upper must be above lower={self.lower}, got {self.upper}")

    def _ends(self, dtype: Any) -> tuple[Any, Any, Any, Any]:
        """The ends in a type, with the numbers next to them: lower, first, last, upper."""
        lower, upper = np.asarray([self.lower, self.upper], dtype)
        # Processors may treat smaller numbers as zero.
        tiny = np.finfo(dtype).tiny
        first = max(np.nextafter(lower, upper), lower + tiny)
        last = min(np.nextafter(upper, lower), upper - tiny)
        return lower, first, last, upper

    def _forward(self, x):
        x = _wide(x)
        lower, first, last, upper = self._ends(x.dtype)
        width = upper - lower
        smallest = np.log(first - lower) - np.log(upper - first)
        largest = np.log(last - lower) - np.log(upper - last)
        x = jnp.clip(x, smallest, largest)
        # From the nearer end, for the last digits.
        y = jnp.where(x < 0, lower + width * jax.nn.sigmoid(x), upper - width * jax.nn.sigmoid(-x))
        slope = jax.nn.log_sigmoid(x) + jax.nn.log_sigmoid(-x) + np.log(width)
        return jnp.clip(y, first, last), sum_event(slope, self.event_ndims_in)

    def _inverse(self, y):
        y = _wide(y)
        lower, _, _, upper = self._ends(y.dtype)
        width = upper - lower
        outside = (y < lower) | (y > upper)
        near, far = END_OF_INTERVAL * width, (1 - END_OF_INTERVAL) * width
        from_lower = jnp.where(y <= lower, near, jnp.where(y >= upper, far, y - lower))
        from_upper = jnp.where(y >= upper, near, jnp.where(y <= lower, far, upper - y))
        tiny = np.finfo(y.dtype).tiny
        below = jnp.log(jnp.maximum(from_lower, tiny))
        above = jnp.log(jnp.maximum(from_upper, tiny))
        log_det = _in_range(np.log(width) - below - above, outside, self.event_ndims_in)
        return below - above, log_det


class Logit(Inverse):
    """Logit of each dimension, from an interval onto the reals: y = log(p) - log(1 - p).

    p = (x - lower) / (upper - lower). The inverse of `Sigmoid`, which says how the ends of the
    interval and numbers beyond them are treated. Both directions cost the same.

    Shapes: ``[*batch, *event]`` both ways.
    """

    def __init__(self, lower: float = 0.0, upper: float = 1.0, event_ndims: int = 1):
        """Builds the map.

        Args:
          lower: Lower end of the interval.
          upper: Upper end of the interval.
          event_ndims: Number of trailing axes that make an event.

        Raises:
          ValueError: If the ends aren't finite, or have no float32 number between them.
        """
        super().__init__(Sigmoid(lower, upper, event_ndims))


def _wide(values: Array) -> Array:
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def _largest_logarithm(dtype: Any) -> float:
    """Largest x with exp(x) and exp(-x) normal numbers of a type."""
    return -math.log(np.finfo(dtype).tiny) - 0.25


def _positive(y: Array) -> tuple[Array, Array]:
    """Values as positive normal numbers, float32 or wider, and which of them were negative."""
    y = _wide(y)
    # The comparison keeps NaN.
    positive = jnp.where(y <= 0, END_OF_POSITIVE, y)
    return jnp.maximum(positive, np.finfo(y.dtype).tiny), y < 0


def _in_range(log_slopes: Array, outside: Array, event_ndims: int) -> Array:
    """Log-determinant of an inverse: -inf for events with an element outside the range."""
    axes = tuple(range(outside.ndim - event_ndims, outside.ndim))
    return jnp.where(jnp.any(outside, axis=axes), -jnp.inf, sum_event(log_slopes, event_ndims))
