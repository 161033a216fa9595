"""Rational-quadratic splines of each entry of an event."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors.amortised import broadcasts_to
from vaeflow.bijectors.base import Bijector, sum_event

SMALLEST = 1e-3
"""Smallest width and height of a bin, relative to the interval, and smallest slope at a knot."""


class RationalQuadraticSpline(Bijector):
    """Bends each entry by an increasing spline on [-bound, bound].

    The knots (x_k, y_k) part the interval into bins, with slope d_k at each. Within a bin, with
    t = (x - x_k) / (x_{k+1} - x_k) and s = (y_{k+1} - y_k) / (x_{k+1} - x_k),

        y = y_k + (y_{k+1} - y_k) (s t^2 + d_k t (1 - t)) / (s + (d_{k+1} + d_k - 2 s) t (1 - t)).

    Outside the interval y = x, and the slopes at both ends are 1. Where `circular`, the interval is
    a circle cut open: both ends share one free slope, and entries beyond them go on around it,
    f(x + 2 bound) = f(x) + 2 bound.

    Widths and heights of the bins are softmaxes of their parameters, slopes softplus, shifted so
    that at zero the spline is the identity. No bin is narrower or lower than a thousandth of the
    interval, no slope less than a thousandth or more than a thousand.

    log|det dy/dx| = sum of log dy/dx over the event. Both directions have a closed form and cost
    the same. Values and log-determinants are float32 or wider.

    Shapes: `widths` and `heights` are ``[*parameters, bins]``, `slopes` is
    ``[*parameters, bins - 1]``, those between bins from left to right, or, where circular,
    ``[*parameters, bins]``, that of the ends first. ``[*parameters]`` broadcasts against
    ``[*batch, *event]``; leading batch axes make the map depend on the example.

    Source: Durkan, Bekasov, Murray & Papamakarios 2019, "Neural Spline Flows", section 3.1; on the
    circle, Rezende et al. 2020, "Normalizing Flows on Tori and Spheres", section 2.1.2.
    """

    static_fields = ("bound", "circular")

    def __init__(
        self,
        widths: Float[Array, "*parameters bins"],
        heights: Float[Array, "*parameters bins"],
        slopes: Float[Array, "*parameters inner"],
        bound: float = 4.0,
        event_ndims: int = 1,
        circular: bool = False,
    ):
        """Builds the spline.

        Args:
          widths: Logits of the bins' shares of the interval of x.
          heights: Logits of the bins' shares of the interval of y.
          slopes: Slopes at the knots before the softplus.
          bound: Upper end of the interval, and minus its lower end.
          event_ndims: Number of trailing axes that make an event.
          circular: Whether the interval is a circle.

        Raises:
          ValueError: If `bound` isn't positive and finite, there are no bins or 1000 or more, or
            the shapes of the parameters don't fit each other.
        """
        super().__init__(event_ndims_in=event_ndims)
        if not 0 < bound < math.inf:
            raise ValueError(f"bound must be positive and finite, got {bound}")
        self.widths = jnp.asarray(widths)
        self.heights = jnp.asarray(heights)
        self.slopes = jnp.asarray(slopes)
        self.bound = float(bound)
        self.circular = bool(circular)
        self._check_parameters()

    def _check_parameters(self) -> None:
        widths, heights, slopes = self.widths.shape, self.heights.shape, self.slopes.shape
        bins = widths[-1] if widths else 0
        if not 0 < bins * SMALLEST < 1:
            raise ValueError(
                f"widths must have a last axis of 1 to {math.ceil(1 / SMALLEST) - 1} bins, "
                f"got shape {widths}"
            )
        inner = bins if self.circular else bins - 1
        if heights != widths or slopes != (*widths[:-1], inner):
            raise ValueError(
                f"heights and slopes must have shapes {widths} and {(*widths[:-1], inner)} for "
                f"widths of shape {widths}, got {heights} and {slopes}"
            )

    def _knots(self, shape: tuple[int, ...]) -> tuple[Array, Array, Array]:
        """Places and slopes of the knots, each ``[*parameters, bins + 1]``."""
        parameters = self.widths.shape[:-1]
        if not broadcasts_to(parameters, shape):
            raise ValueError(
                f"RationalQuadraticSpline: parameters of shape {parameters} don't broadcast to the "
                f"input of shape {shape}"
            )
        slopes = self.slopes.astype(jnp.promote_types(self.slopes.dtype, jnp.float32))
        slopes = SMALLEST + jax.nn.softplus(slopes + math.log(math.expm1(1 - SMALLEST)))
        slopes = jnp.minimum(slopes, 1 / SMALLEST)
        if self.circular:
            slopes = jnp.concatenate([slopes, slopes[..., :1]], axis=-1)
        else:
            slopes = _between(1.0, slopes, 1.0)
        return _places(self.widths, self.bound), _places(self.heights, self.bound), slopes

    def _bend(self, values: Array, inverse: bool) -> tuple[Array, Array]:
        values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
        x, y, slopes = self._knots(values.shape)
        if self.circular:
            turn = 2 * self.bound
            # The number of turns is a constant to a gradient, as it is nearly everywhere.
            turns = jax.lax.stop_gradient(turn * jnp.floor((values + self.bound) / turn))
            start = values - turns
        else:
            turns = 0.0
            start = values
        # NaN counts as inside, so that it shows in the log-determinant as well.
        outside = jnp.abs(start) >= self.bound
        # What isn't chosen in the end must still have a finite gradient.
        inside = jnp.where(outside, 0.0, start)
        ends = _bin(inside, y if inverse else x, x, y, slopes)
        value, log_slope = (_bin_inverse if inverse else _bin_forward)(inside, *ends)
        if self.circular:
            end_slope = jnp.log(jnp.broadcast_to(slopes[..., 0], values.shape))
            end_slope = -end_slope if inverse else end_slope
        else:
            end_slope = 0.0
        value = turns + jnp.where(outside, start, value)
        return value, sum_event(jnp.where(outside, end_slope, log_slope), self.event_ndims_in)

    def _forward(self, x):
        return self._bend(x, inverse=False)

    def _inverse(self, y):
        return self._bend(y, inverse=True)


def _between(first: float, values: Array, last: float) -> Array:
    edge = (*values.shape[:-1], 1)
    return jnp.concatenate(
        [jnp.full(edge, first, values.dtype), values, jnp.full(edge, last, values.dtype)], axis=-1
    )


def _places(logits: Array, bound: float) -> Array:
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    shares = SMALLEST + (1 - SMALLEST * logits.shape[-1]) * jax.nn.softmax(logits, axis=-1)
    inner = 2 * bound * jnp.cumsum(shares[..., :-1], axis=-1) - bound
    return _between(-bound, inner, bound)


def _bin(values: Array, places: Array, *knots: Array) -> list[Array]:
    """The left and the right end of the bin of each value, in turn for each kind of `knots`.

    A masked sum, since scattering gradients back through a gather takes CPUs longer.
    """
    index = jnp.sum(values[..., None] >= places[..., 1:-1], axis=-1)
    chosen = index[..., None] == jnp.arange(places.shape[-1] - 1)
    return [
        jnp.sum(jnp.where(chosen, side, 0.0), axis=-1)
        for kind in knots
        for side in (kind[..., :-1], kind[..., 1:])
    ]


def _bin_forward(value, x_left, x_right, y_left, y_right, left_slope, right_slope):
    width, height = x_right - x_left, y_right - y_left
    slope = height / width
    place = (value - x_left) / width
    above = slope * place**2 + left_slope * place * (1 - place)
    below = _denominator(place, slope, left_slope, right_slope)
    return y_left + height * above / below, _log_slope(place, slope, left_slope, right_slope)


def _bin_inverse(value, x_left, x_right, y_left, y_right, left_slope, right_slope):
    width, height = x_right - x_left, y_right - y_left
    slope = height / width
    rise = (value - y_left) / height
    # The root of the quadratic equation for the place, written so that only terms of one sign are
    # ever added: nothing cancels, and neither the root nor a denominator comes near zero.
    tilt = left_slope * (1 - rise) - right_slope * rise
    magnitude = jnp.where(tilt >= 0, tilt, -tilt)
    root = magnitude + jnp.sqrt(tilt**2 + 4 * slope**2 * rise * (1 - rise))
    up, down = 2 * slope * rise, 2 * slope * (1 - rise)
    place = jnp.where(tilt >= 0, up, root) / (root + jnp.where(tilt >= 0, up, down))
    return x_left + width * place, -_log_slope(place, slope, left_slope, right_slope)


def _denominator(place, slope, left_slope, right_slope):
    product = place * (1 - place)
    return slope * (1 - 2 * product) + (left_slope + right_slope) * product


def _log_slope(place, slope, left_slope, right_slope):
    rest = 1 - place
    above = right_slope * place**2 + 2 * slope * place * rest + left_slope * rest**2
    below = _denominator(place, slope, left_slope, right_slope)
    return 2 * jnp.log(slope / below) + jnp.log(above)
