"""Rational-quadratic splines of each entry of an event."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vaeflow.bijectors.base import Bijector, broadcasts_to, sum_event

SMALLEST = 1e-3
"""Smallest width and height of a bin, relative to the interval, and smallest slope at a knot."""

ZERO = math.log(math.expm1(1 - SMALLEST))
"""What is added to the parameter of a slope, so that zero stands for a slope of 1."""


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

    def _columns(self, shape: tuple[int, ...]) -> list[Array]:
        """Widths, heights and slopes of every entry of an input, each ``[parameter, entry]``.

        Loops over what is parallel, entries, are then innermost, where CPUs have instructions for
        several at once.
        """
        kinds = (self.widths, self.heights, self.slopes)
        parameters = self.widths.shape[:-1]
        if not broadcasts_to(parameters, shape):
            raise ValueError(
                f"RationalQuadraticSpline: parameters of shape {parameters} don't broadcast to the "
                f"input of shape {shape}"
            )
        raw = jnp.concatenate(kinds, axis=-1)
        raw = raw.astype(jnp.promote_types(raw.dtype, jnp.float32))
        raw = jnp.broadcast_to(raw, shape + raw.shape[-1:])
        columns = raw.reshape((math.prod(shape), raw.shape[-1])).T
        bins = self.widths.shape[-1]
        return jnp.split(columns, [bins, 2 * bins])

    def _bend(self, values: Array, inverse: bool) -> tuple[Array, Array]:
        shape = values.shape
        values = values.astype(jnp.promote_types(values.dtype, jnp.float32)).reshape(-1)
        widths, heights, slopes = self._columns(shape)
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
        index = _index(inside, heights if inverse else widths, self.bound)
        ends = (
            *_bin(widths, index, self.bound),
            *_bin(heights, index, self.bound),
            *_slopes_at_ends(slopes, index, self.circular),
        )
        value, log_slope = (_bin_inverse if inverse else _bin_forward)(inside, *ends)
        if self.circular:
            end_slope = jnp.log(_slope(slopes[0]))
            end_slope = -end_slope if inverse else end_slope
        else:
            end_slope = 0.0
        value = turns + jnp.where(outside, start, value)
        log_slope = jnp.where(outside, end_slope, log_slope)
        return value.reshape(shape), sum_event(log_slope.reshape(shape), self.event_ndims_in)

    def _forward(self, x):
        return self._bend(x, inverse=False)

    def _inverse(self, y):
        return self._bend(y, inverse=True)


def _index(values: Array, logits: Array, bound: float) -> Array:
    """The number of each value's bin."""
    bins = len(logits)
    shares = SMALLEST + (1 - SMALLEST * bins) * jax.nn.softmax(logits, axis=0)
    places = 2 * bound * jnp.cumsum(shares[:-1], axis=0) - bound
    return jax.lax.stop_gradient(jnp.sum(values >= places, axis=0))


def _bin(logits: Array, index: Array, bound: float) -> tuple[Array, Array]:
    """Left end and size of the bin of this number, among bins with these logits."""
    left, size = _shares(logits, index)
    return 2 * bound * left - bound, 2 * bound * size


@jax.custom_vjp
def _shares(
    logits: Float[Array, "bins entry"], index: Int[Array, " entry"]
) -> tuple[Float[Array, " entry"], Float[Array, " entry"]]:
    """Computes the shares of all bins before one, together, and of that one.

    Its gradient is written out so that what all bins share ends in a division. Into the loop over
    bins XLA would fuse anything cheaper, on CPUs, and compute it anew for each bin.
    """
    return _shares_forward(logits, index)[0]


def _shares_forward(logits, index):
    weights = jnp.exp(logits - jnp.max(logits, axis=0))
    total = jnp.sum(weights, axis=0)
    before, at = _before_and_at(index, len(logits))
    softmax_before = jnp.sum(jnp.where(before, weights, 0.0), axis=0) / total
    softmax_at = jnp.sum(jnp.where(at, weights, 0.0), axis=0) / total
    rest = 1 - SMALLEST * len(logits)
    shares = (SMALLEST * index + rest * softmax_before, SMALLEST + rest * softmax_at)
    return shares, (weights, total, index, softmax_before, softmax_at)


def _shares_backward(residuals, cotangents):
    weights, total, index, softmax_before, softmax_at = residuals
    dbefore, dat = ((1 - SMALLEST * len(weights)) * d for d in cotangents)
    mean = (dbefore * softmax_before + dat * softmax_at) / total
    dbefore, dat = dbefore / total, dat / total
    before, at = _before_and_at(index, len(weights))
    dlogits = weights * (jnp.where(before, dbefore, jnp.where(at, dat, 0.0)) - mean)
    return dlogits, np.zeros(index.shape, jax.dtypes.float0)


_shares.defvjp(_shares_forward, _shares_backward)


def _before_and_at(index: Array, bins: int) -> tuple[Array, Array]:
    numbers = jnp.arange(bins)[:, None]
    return numbers < index, numbers == index


def _slopes_at_ends(raw: Array, index: Array, circular: bool) -> tuple[Array, Array]:
    """Slopes at the left and the right end of a bin.

    A masked sum, since scattering gradients back through a gather takes CPUs longer. Where nothing
    is chosen, at the ends of a spline that isn't circular, it is zero, and the slope 1.
    """
    numbers = jnp.arange(len(raw))[:, None]
    knots = (index, (index + 1) % len(raw)) if circular else (index - 1, index)
    left, right = (_slope(jnp.sum(jnp.where(numbers == k, raw, 0.0), axis=0)) for k in knots)
    return left, right


@jax.custom_vjp
def _slope(raw: Array) -> Array:
    """Computes the slope from its parameter; its gradient ends in a division, as above."""
    return jnp.minimum(SMALLEST + jax.nn.softplus(raw + ZERO), 1 / SMALLEST)


def _slope_forward(raw):
    slope = _slope(raw)
    return slope, (raw, slope)


def _slope_backward(residuals, dslope):
    raw, slope = residuals
    dslope = jnp.where(slope < 1 / SMALLEST, dslope, 0.0)
    return (dslope / (1 + jnp.exp(-raw - ZERO)),)


_slope.defvjp(_slope_forward, _slope_backward)


def _bin_forward(value, x_left, width, y_left, height, left_slope, right_slope):
    slope = height / width
    place = _within((value - x_left) / width)
    above = slope * place**2 + left_slope * place * (1 - place)
    below = _denominator(place, slope, left_slope, right_slope)
    return y_left + height * above / below, _log_slope(place, slope, left_slope, right_slope)


def _bin_inverse(value, x_left, width, y_left, height, left_slope, right_slope):
    slope = height / width
    rise = _within((value - y_left) / height)
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


def _within(share: Array) -> Array:
    """Brings back what rounding has moved beyond 0 or 1, but not NaN; the slope at both is 1."""
    return jnp.where(share < 0, 0.0, jnp.where(share > 1, 1.0, share))
