"""Monotone maps of each dimension without a closed inverse: Bernstein polynomials and networks.

Both are increasing onto the whole real line, and are inverted by `solve_monotone`.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.arrays import broadcasts_to, sum_event
from vaeflow.bijectors.base import Bijector
from vaeflow.bijectors.numerical import solve_monotone

MIN_INCREMENT = 1e-3
"""Smallest increment of a Bernstein coefficient, relative to the interval."""

MIN_SLOPE = 1e-3
"""Smallest slope of a unit of a monotone network."""


class BernsteinPolynomial(Bijector):
    """Bernstein polynomial of each dimension: increasing on [-bound, bound], linear beyond it.

    With t = (x + bound) / (2 bound), increments p_k > 0 that sum to 1, and b_{k,n} the Bernstein
    polynomials of degree n,

        y = -bound + 2 bound sum_k (p_1 + ... + p_k) b_{k,n}(t),   k = 0, ..., n,
        dy/dx = n sum_k p_{k+1} b_{k,n-1}(t),   k = 0, ..., n - 1.

    The tails are lines with the slopes at the ends, so that values and slopes are continuous.
    Increments are softmaxes of their parameters, none less than a thousandth: at zero the map is
    the identity. Only positive terms are added, so nothing cancels.

    Forward is the cheap direction. The inverse is computed by `solve_monotone`, with NaN where it
    fails. log|det dy/dx| = sum of log dy/dx over the event; it is float32 or wider.

    Shapes: `increments` is ``[*parameters, degree]``; ``[*parameters]`` broadcasts against
    ``[*batch, *event]``.

    Source: Ramasinghe, Fernando, Khan & Barnes 2022, "Robust normalizing flows using
    Bernstein-type polynomials", with linear tails.
    """

    static_fields = ("bound",)

    def __init__(
        self,
        increments: Float[Array, "*parameters degree"],
        bound: float = 4.0,
        event_ndims: int = 1,
    ):
        """Builds the polynomial.

        Args:
          increments: Logits of the increments p.
          bound: Upper end of the interval, and minus its lower end.
          event_ndims: Number of trailing axes that make an event.

        Raises:
          ValueError: If `bound` isn't positive and finite, or the degree isn't between 1 and 99.
        """
        super().__init__(event_ndims_in=event_ndims)
        if not 0 < bound < math.inf:
            raise ValueError(f"bound must be positive and finite, got {bound}")
        self.increments = jnp.asarray(increments)
        self.bound = float(bound)
        degree = self.increments.shape[-1] if self.increments.ndim else 0
        if not 1 <= degree <= 99:
            raise ValueError(
                f"increments must have a last axis of 1 to 99 coefficients, got shape "
                f"{self.increments.shape}"
            )

    def _prepared(self, values: Array) -> tuple[Array, Array]:
        parameters = self.increments.shape[:-1]
        if not broadcasts_to(parameters, values.shape):
            raise ValueError(
                f"BernsteinPolynomial: parameters of shape {parameters} don't broadcast to the "
                f"input of shape {values.shape}"
            )
        logits = self.increments.astype(jnp.promote_types(self.increments.dtype, jnp.float32))
        rest = 1 - MIN_INCREMENT * logits.shape[-1]
        increments = MIN_INCREMENT + rest * jax.nn.softmax(logits, axis=-1)
        return values.astype(jnp.promote_types(values.dtype, jnp.float32)), increments

    def _log_det(self, increments: Array, x: Array) -> Array:
        degree = increments.shape[-1]
        t = jnp.clip((x + self.bound) / (2 * self.bound), 0, 1)
        slope = degree * _de_casteljau(_parameter_first(increments, x), t)
        return sum_event(jnp.log(slope), self.event_ndims_in)

    def _forward(self, x):
        x, increments = self._prepared(x)
        y = _polynomial((increments, jnp.asarray(self.bound, x.dtype)), x)
        return y, self._log_det(increments, x)

    def _inverse(self, y):
        y, increments = self._prepared(y)
        # In the unit of the interval, as the search is for values near one.
        unit = (increments, jnp.ones((), y.dtype))
        x = self.bound * solve_monotone(_polynomial, unit, y / self.bound)
        return x, -self._log_det(increments, x)


def _polynomial(parameters: tuple[Array, Array], x: Array) -> Array:
    """Computes the polynomial on the interval and its linear tails."""
    increments, bound = parameters
    degree = increments.shape[-1]
    inside = jnp.clip(x, -bound, bound)
    sums = _parameter_first(jnp.cumsum(increments[..., :-1], axis=-1), x)
    zero = jnp.zeros((1, *sums.shape[1:]), sums.dtype)
    coefficients = jnp.concatenate([zero, sums, jnp.ones_like(zero)])
    height = _de_casteljau(coefficients, (inside + bound) / (2 * bound))
    slope = degree * jnp.where(x < 0, increments[..., 0], increments[..., -1])
    return 2 * bound * height - bound + slope * (x - inside)


def _parameter_first(coefficients: Array, x: Array) -> Array:
    """Moves the last axis to the front and aligns the others with the last axes of x."""
    missing = x.ndim - (coefficients.ndim - 1)
    return jnp.moveaxis(coefficients.reshape((1,) * missing + coefficients.shape), -1, 0)


def _de_casteljau(coefficients: Array, t: Array) -> Array:
    """Computes sum_k c_k b_{k,n}(t) for coefficients ``[n + 1, ...]``."""
    while len(coefficients) > 1:
        coefficients = (1 - t) * coefficients[:-1] + t * coefficients[1:]
    return coefficients[0]


class MonotoneNetwork(Bijector):
    """Monotone network of one hidden layer, applied to each dimension.

        y = logit(sum_j w_j sigmoid(a_j x + b_j)),   w = softmax(weights),   a_j > 0.

    It is the logit of the CDF of a mixture of logistic distributions. It is increasing onto the
    whole real line, asymptotically linear with the smallest slope of its units. Values and log
    slopes are computed from logarithms of sigmoids only, and stay finite where sigmoids round to 0
    or 1.

    Forward is the cheap direction. The inverse is computed by `solve_monotone`, with NaN where it
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
        slopes = MIN_SLOPE + jax.nn.softplus(slopes + jnp.log(jnp.expm1(1 - MIN_SLOPE)))
        units = jax.nn.log_softmax(weights, axis=-1), slopes, offsets
        return values.astype(jnp.promote_types(values.dtype, jnp.float32)), units

    def _log_det(self, units: tuple[Array, Array, Array], x: Array) -> Array:
        log_weights, slopes, _ = units
        below, above = _log_tails(units, x)
        # By each unit's fraction of both tails, so that nothing large cancels.
        parts = jax.nn.log_softmax(below, axis=-1) + jax.nn.log_softmax(above, axis=-1)
        log_slope = jax.nn.logsumexp(jnp.log(slopes) - log_weights + parts, axis=-1)
        return sum_event(log_slope, self.event_ndims_in)

    def _forward(self, x):
        x, units = self._prepared(x)
        return _network_output(units, x), self._log_det(units, x)

    def _inverse(self, y):
        y, units = self._prepared(y)
        x = solve_monotone(_network_output, units, y)
        return x, -self._log_det(units, x)


def _log_tails(units: tuple[Array, Array, Array], x: Array) -> tuple[Array, Array]:
    """Computes log(w_j sigmoid(a_j x + b_j)) and log(w_j sigmoid(-a_j x - b_j))."""
    log_weights, slopes, offsets = units
    logits = slopes * x[..., None] + offsets
    return log_weights + jax.nn.log_sigmoid(logits), log_weights + jax.nn.log_sigmoid(-logits)


def _network_output(units: tuple[Array, Array, Array], x: Array) -> Array:
    below, above = _log_tails(units, x)
    return jax.nn.logsumexp(below, axis=-1) - jax.nn.logsumexp(above, axis=-1)
