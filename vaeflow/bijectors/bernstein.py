"""Monotone polynomials of each entry."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors.amortised import broadcasts_to
from vaeflow.bijectors.base import Bijector, sum_event
from vaeflow.bijectors.numerical import solve_monotone

SMALLEST = 1e-3
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
        left = 1 - SMALLEST * logits.shape[-1]
        shares = SMALLEST + left * jax.nn.softmax(logits, axis=-1)
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
