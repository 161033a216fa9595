"""Monotone scalar maps: Bernstein polynomials and monotone networks."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.shapes import broadcasts_to, sum_event
from vaeflow.bijectors.base import Bijector
from vaeflow.bijectors.numerical import solve_monotone

SMALLEST_COEFFICIENT = 1e-3
"""Least share of a coefficient in the rise over the interval."""


class BernsteinPolynomial(Bijector):
    """Bends each entry by an increasing polynomial on [-bound, bound], and by lines beyond it.

    With t = (x + bound) / (2 bound), shares p_k > 0 that sum to 1, and b_{k,n} the Bernstein
    polynomials of degree n,

        y = -bound + 2 bound sum_k (p_1 + ... + p_k) b_{k,n}(t),   k = 0, ..., n,
        dy/dx = n sum_k p_{k+1} b_{k,n-1}(t),   k = 0, ..., n - 1.

    Beyond the interval the line goes on with the slope at its end, so that values and slopes are
    continuous. Shares are softmaxes of their parameters, none less than a thousandth: at zero the
    map is the identity. Only positive terms are added, so nothing cancels.

    Forward is the cheap direction. The inverse is found by `solve_monotone`, with NaN where it
    fails. log|det dy/dx| = sum of log dy/dx over the event; it is float32 or wider.

    Shapes: `shares` is ``[*parameters, degree]``; ``[*parameters]`` broadcasts against
    ``[*batch, *event]``.

    Source: Ramasinghe, Fernando, Khan & Barnes 2022, "Robust normalizing flows using
    Bernstein-type polynomials", with lines for tails.
    """

    static_fields = ("bound",)

    def __init__(
        self, shares: Float[Array, "*parameters degree"], bound: float = 4.0, event_ndims: int = 1
    ):
        """Builds the polynomial.

        Args:
          shares: Logits of the shares p.
          bound: Upper end of the interval, and minus its lower end.
          event_ndims: Number of trailing axes that make an event.

        Raises:
          ValueError: If `bound` isn't positive and finite, or the degree isn't between 1 and 99.
        """
        super().__init__(event_ndims_in=event_ndims)
        if not 0 < bound < math.inf:
            raise ValueError(f"bound must be positive and finite, got {bound}")
        self.shares = jnp.asarray(shares)
        self.bound = float(bound)
        degree = self.shares.shape[-1] if self.shares.ndim else 0
        if not 1 <= degree <= 99:
            raise ValueError(
                f"shares must have a last axis of 1 to 99 coefficients, got shape "
                f"{self.shares.shape}"
            )

    def _prepared(self, values: Array) -> tuple[Array, Array]:
        parameters = self.shares.shape[:-1]
        if not broadcasts_to(parameters, values.shape):
            raise ValueError(
                f"BernsteinPolynomial: parameters of shape {parameters} don't broadcast to the "
                f"input of shape {values.shape}"
            )
        logits = self.shares.astype(jnp.promote_types(self.shares.dtype, jnp.float32))
        left = 1 - SMALLEST_COEFFICIENT * logits.shape[-1]
        shares = SMALLEST_COEFFICIENT + left * jax.nn.softmax(logits, axis=-1)
        return values.astype(jnp.promote_types(values.dtype, jnp.float32)), shares

    def _log_det(self, shares: Array, x: Array) -> Array:
        degree = shares.shape[-1]
        place = jnp.clip((x + self.bound) / (2 * self.bound), 0, 1)
        slope = degree * _polynomial(_beside(shares, x), place)
        return sum_event(jnp.log(slope), self.event_ndims_in)

    def _forward(self, x):
        x, shares = self._prepared(x)
        return _bent((shares, jnp.asarray(self.bound, x.dtype)), x), self._log_det(shares, x)

    def _inverse(self, y):
        y, shares = self._prepared(y)
        x = solve_monotone(_bent, (shares, jnp.asarray(self.bound, y.dtype)), y)
        return x, -self._log_det(shares, x)


def _bent(parameters: tuple[Array, Array], x: Array) -> Array:
    shares, bound = parameters
    degree = shares.shape[-1]
    inside = jnp.clip(x, -bound, bound)
    sums = _beside(jnp.cumsum(shares[..., :-1], axis=-1), x)
    start = jnp.zeros((1, *sums.shape[1:]), sums.dtype)
    heights = jnp.concatenate([start, sums, jnp.ones_like(start)])
    rise = _polynomial(heights, (inside + bound) / (2 * bound))
    slope = degree * jnp.where(x < 0, shares[..., 0], shares[..., -1])
    return 2 * bound * rise - bound + slope * (x - inside)


def _beside(coefficients: Array, x: Array) -> Array:
    """Moves the last axis to the front, the others in line with those of x."""
    rest = coefficients.shape[:-1]
    lined = coefficients.reshape((1,) * (x.ndim - len(rest)) + coefficients.shape)
    return jnp.moveaxis(lined, -1, 0)


def _polynomial(coefficients: Array, place: Array) -> Array:
    """The sum of coefficients ``[order, ...]`` times Bernstein polynomials (de Casteljau)."""
    while len(coefficients) > 1:
        coefficients = (1 - place) * coefficients[:-1] + place * coefficients[1:]
    return coefficients[0]


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
