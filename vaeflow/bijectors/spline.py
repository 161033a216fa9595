"""Monotonic rational-quadratic splines, per dimension of an event.

Source: Durkan, Bekasov, Murray & Papamakarios 2019, "Neural Spline Flows". Two derivatives are
written by hand for speed on CPUs (`_knot_and_size`, `_derivative`); benchmarks/README.md has the
timings.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vaeflow._util.arrays import broadcasts_to, sum_event
from vaeflow.bijectors.base import Bijector

MIN_BIN_SIZE = 1e-3
"""Smallest width and height of a bin, relative to the interval."""

MIN_DERIVATIVE = 1e-3
"""Smallest derivative at a knot; the largest is its inverse."""

DERIVATIVE_SHIFT = math.log(math.expm1(1 - MIN_DERIVATIVE))
"""Added to the parameter of a derivative before the softplus, so that zero gives 1."""


class RationalQuadraticSpline(Bijector):
    """Monotonic rational-quadratic spline on [-bound, bound], per dimension.

    The knots (x_k, y_k) divide the interval into bins of widths w_k = x_{k+1} - x_k and heights
    h_k = y_{k+1} - y_k, with the derivative d_k at each knot. Within a bin, with
    xi = (x - x_k) / w_k and s = h_k / w_k,

        y = y_k + h_k (s xi^2 + d_k xi (1 - xi)) / (s + (d_{k+1} + d_k - 2 s) xi (1 - xi)).

    Outside the interval y = x, and the derivatives at both ends are 1. If `circular`, the interval
    is a circle cut open: both ends share one free derivative, and the map is continued by
    f(x + 2 bound) = f(x) + 2 bound.

    Widths and heights are softmaxes of their parameters and derivatives softpluses, shifted so that
    at zero the spline is the identity. No bin is narrower or lower than a thousandth of the
    interval; derivatives are between a thousandth and a thousand.

    log|det dy/dx| = sum of log dy/dx over the event. Both directions have a closed form and cost
    the same. Values and log-determinants are float32 or wider. The log-determinants of both
    directions differ by as much as the rounding of y alone moves them, which grows with the change
    of the slope over its size: near a knot of slope 0.03 by up to 3e-4 in float32.

    Shapes: `widths` and `heights` are ``[*parameters, bins]``, `derivatives` is
    ``[*parameters, bins - 1]``, those between bins from left to right, or, if circular,
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
        derivatives: Float[Array, "*parameters inner"],
        bound: float = 4.0,
        event_ndims: int = 1,
        circular: bool = False,
    ):
        """Builds the spline.

        Args:
          widths: Logits of the widths, as fractions of the interval of x.
          heights: Logits of the heights, as fractions of the interval of y.
          derivatives: Derivatives at the knots before the softplus.
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
        self.derivatives = jnp.asarray(derivatives)
        self.bound = float(bound)
        self.circular = bool(circular)
        self._check_parameters()

    def _check_parameters(self) -> None:
        widths, heights = self.widths.shape, self.heights.shape
        derivatives = self.derivatives.shape
        num_bins = widths[-1] if widths else 0
        if not 0 < num_bins * MIN_BIN_SIZE < 1:
            raise ValueError(
                f"widths must have a last axis of 1 to {math.ceil(1 / MIN_BIN_SIZE) - 1} bins, "
                f"got shape {widths}"
            )
        inner = num_bins if self.circular else num_bins - 1
        if heights != widths or derivatives != (*widths[:-1], inner):
            raise ValueError(
                f"heights and derivatives must have shapes {widths} and {(*widths[:-1], inner)} "
                f"for widths of shape {widths}, got {heights} and {derivatives}"
            )

    def _parameters_first(self, shape: tuple[int, ...]) -> list[Array]:
        """Widths, heights and derivatives for every element of an input, ``[parameter, element]``.

        With the elements innermost, loops over them use the vector instructions of CPUs.
        """
        kinds = (self.widths, self.heights, self.derivatives)
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
        num_bins = self.widths.shape[-1]
        return jnp.split(columns, [num_bins, 2 * num_bins])

    def _apply(self, values: Array, inverse: bool) -> tuple[Array, Array]:
        shape = values.shape
        values = values.astype(jnp.promote_types(values.dtype, jnp.float32)).reshape(-1)
        widths, heights, derivatives = self._parameters_first(shape)
        if self.circular:
            period = 2 * self.bound
            # The number of turns has derivative zero wherever it has one.
            offset = jax.lax.stop_gradient(period * jnp.floor((values + self.bound) / period))
            start = values - offset
        else:
            offset = 0.0
            start = values
        # NaN counts as inside, so that it shows in the log-determinant as well.
        outside = jnp.abs(start) >= self.bound
        # The branch that isn't selected must still have a finite gradient.
        inside = jnp.where(outside, 0.0, start)
        index = _bin_index(inside, heights if inverse else widths, self.bound)
        spline_bin = (
            *_bin(widths, index, self.bound),
            *_bin(heights, index, self.bound),
            *_derivatives_at_ends(derivatives, index, self.circular),
        )
        value, log_slope = (_bin_inverse if inverse else _bin_forward)(inside, *spline_bin)
        if self.circular:
            end_slope = jnp.log(_derivative(derivatives[0]))
            end_slope = -end_slope if inverse else end_slope
        else:
            end_slope = 0.0
        value = offset + jnp.where(outside, start, value)
        log_slope = jnp.where(outside, end_slope, log_slope)
        return value.reshape(shape), sum_event(log_slope.reshape(shape), self.event_ndims_in)

    def _forward(self, x):
        return self._apply(x, inverse=False)

    def _inverse(self, y):
        return self._apply(y, inverse=True)


def _bin_forward(x, x_k, w, y_k, h, d_left, d_right):
    """Computes y and log dy/dx within a bin."""
    s = h / w
    xi = _clip_unit((x - x_k) / w)
    numerator = s * xi**2 + d_left * xi * (1 - xi)
    denominator = _denominator(xi, s, d_left, d_right)
    return y_k + h * numerator / denominator, _log_slope(xi, s, d_left, d_right)


def _bin_inverse(y, x_k, w, y_k, h, d_left, d_right):
    """Computes x and log dx/dy within a bin.

    xi is the root in [0, 1] of a quadratic, written with terms of one sign only: nothing cancels,
    and neither the root nor a denominator comes near zero.
    """
    s = h / w
    eta = _clip_unit((y - y_k) / h)
    b = d_left * (1 - eta) - d_right * eta
    magnitude = jnp.where(b >= 0, b, -b)
    root = magnitude + jnp.sqrt(b**2 + 4 * s**2 * eta * (1 - eta))
    up, down = 2 * s * eta, 2 * s * (1 - eta)
    xi = jnp.where(b >= 0, up, root) / (root + jnp.where(b >= 0, up, down))
    return x_k + w * xi, -_log_slope(xi, s, d_left, d_right)


def _denominator(xi, s, d_left, d_right):
    product = xi * (1 - xi)
    return s * (1 - 2 * product) + (d_left + d_right) * product


def _log_slope(xi, s, d_left, d_right):
    """Computes log dy/dx, equation 5 of the paper."""
    rest = 1 - xi
    numerator = d_right * xi**2 + 2 * s * xi * rest + d_left * rest**2
    denominator = _denominator(xi, s, d_left, d_right)
    return 2 * jnp.log(s / denominator) + jnp.log(numerator)


def _clip_unit(xi: Array) -> Array:
    """Clips rounding errors to [0, 1], with slope 1 at both ends, and keeps NaN."""
    return jnp.where(xi < 0, 0.0, jnp.where(xi > 1, 1.0, xi))


def _bin_index(values: Array, logits: Array, bound: float) -> Array:
    """Finds the bin that holds each value."""
    num_bins = len(logits)
    sizes = MIN_BIN_SIZE + (1 - MIN_BIN_SIZE * num_bins) * jax.nn.softmax(logits, axis=0)
    knots = 2 * bound * jnp.cumsum(sizes[:-1], axis=0) - bound
    return jax.lax.stop_gradient(jnp.sum(values >= knots, axis=0))


def _bin(logits: Array, index: Array, bound: float) -> tuple[Array, Array]:
    """Left knot and size (x_k and w_k, or y_k and h_k) of the bin with this index."""
    left, size = _knot_and_size(logits, index)
    return 2 * bound * left - bound, 2 * bound * size


@jax.custom_jvp
def _knot_and_size(
    logits: Float[Array, "bins element"], index: Int[Array, " element"]
) -> tuple[Float[Array, " element"], Float[Array, " element"]]:
    """Computes the total size of the bins before the indexed one, and its own, on [0, 1].

    Hand-written derivative: XLA:CPU would otherwise fuse the per-element factors of the gradient
    into its loop over bins and recompute them for each bin. A division isn't fused.
    """
    _, _, softmax_before, softmax_at = _softmax_sums(logits, index)
    rest = 1 - MIN_BIN_SIZE * len(logits)
    return MIN_BIN_SIZE * index + rest * softmax_before, MIN_BIN_SIZE + rest * softmax_at


def _softmax_sums(logits, index):
    """Unnormalised weights, their sum, and the softmax before the bin and of the bin."""
    weights = jnp.exp(logits - jnp.max(logits, axis=0))
    total = jnp.sum(weights, axis=0)
    before, at = _bin_masks(index, len(logits))
    softmax_before = jnp.sum(jnp.where(before, weights, 0.0), axis=0) / total
    softmax_at = jnp.sum(jnp.where(at, weights, 0.0), axis=0) / total
    return weights, total, softmax_before, softmax_at


@_knot_and_size.defjvp
def _knot_and_size_jvp(primals, tangents):
    logits, index = primals
    sums = _softmax_sums(logits, index)
    rest = 1 - MIN_BIN_SIZE * len(logits)
    knot_and_size = MIN_BIN_SIZE * index + rest * sums[2], MIN_BIN_SIZE + rest * sums[3]
    return knot_and_size, _knot_and_size_change(*sums, index, tangents[0])


# Recomputes the masks in the backward pass, rather than storing them.
@functools.partial(jax.checkpoint, prevent_cse=False)
def _knot_and_size_change(weights, total, softmax_before, softmax_at, index, dlogits):
    before, at = _bin_masks(index, len(weights))
    dweights = weights * dlogits
    dtotal = jnp.sum(dweights, axis=0) / total
    rest = 1 - MIN_BIN_SIZE * len(weights)

    def change(mask, softmax):
        return rest * (jnp.sum(jnp.where(mask, dweights, 0.0), axis=0) / total - softmax * dtotal)

    return change(before, softmax_before), change(at, softmax_at)


def _bin_masks(
    index: Array, num_bins: int
) -> tuple[Bool[Array, "bins element"], Bool[Array, "bins element"]]:
    """Masks of the bins before the indexed one, and of that bin."""
    numbers = jnp.arange(num_bins)[:, None]
    return numbers < index, numbers == index


def _derivatives_at_ends(raw: Array, index: Array, circular: bool) -> tuple[Array, Array]:
    """Derivatives d_k and d_{k+1} at the ends of a bin.

    By masked sums, which are faster on CPUs than a gather, whose gradient is a scatter. At the ends
    of a spline that isn't circular no parameter is selected: the sum is 0 and the derivative 1.
    """
    numbers = jnp.arange(len(raw))[:, None]
    knots = (index, (index + 1) % len(raw)) if circular else (index - 1, index)
    left, right = (_derivative(jnp.sum(jnp.where(numbers == k, raw, 0.0), axis=0)) for k in knots)
    return left, right


@jax.custom_jvp
def _derivative(raw: Array) -> Array:
    """Computes a derivative from its parameter; its gradient ends in a division, as above."""
    return jnp.minimum(MIN_DERIVATIVE + jax.nn.softplus(raw + DERIVATIVE_SHIFT), 1 / MIN_DERIVATIVE)


@_derivative.defjvp
def _derivative_jvp(primals, tangents):
    (raw,), (draw,) = primals, tangents
    derivative = _derivative(raw)
    change = draw / (1 + jnp.exp(-raw - DERIVATIVE_SHIFT))
    return derivative, jnp.where(derivative < 1 / MIN_DERIVATIVE, change, 0.0)
