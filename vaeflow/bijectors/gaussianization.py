"""Gaussianization by mixtures: y = Phi^-1(F(x)), F the CDF of a mixture of normals, per dimension.

With the tail probabilities, hazards and quantiles of the normal distribution in logarithms, which
stay exact far out. Source: Meng, Song, Song & Ermon 2020, "Gaussianization flows".
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vaeflow._util.arrays import broadcasts_to, sum_event
from vaeflow._util.derivatives import CustomJVP
from vaeflow.bijectors.base import Bijector
from vaeflow.bijectors.numerical import solve_monotone
from vaeflow.nn.normalization import column_statistics

FAR = 5.0
"""z above which tails come from a continued fraction instead of the error function."""

TERMS = 20
"""Number of terms of the continued fraction: its error at z = 5 is 1e-15."""

NEWTON_STEPS = 6
"""Number of Newton steps for a quantile, enough for the last bits of float64."""

MIN_RELATIVE_SCALE = 0.02
"""Smallest scale of a kernel, in standard deviations of the data."""


class MixtureGaussianization(Bijector):
    """Gaussianization of each dimension: y = Phi^-1(F(x)), F the CDF of a mixture of normals.

        y = Phi^-1(sum_k w_k Phi((x - c_k) / s_k)),   w = softmax(weights),   s = exp(log_scales),

    where Phi is the standard normal CDF: a dimension distributed as the mixture becomes standard
    normal. With one kernel y = (x - c) / s; with more, y is asymptotically linear with the slope of
    the widest kernel. Probabilities are logarithms of the smaller tail, and slopes ratios of
    hazards, so that values, log-determinants and their gradients stay finite and exact wherever the
    square of (x - c) / s is: to 1e19 in float32, beyond which y is NaN.

    Forward is the cheap direction. The inverse is computed by `solve_monotone`, with NaN where it
    fails. log|det dy/dx| = sum of log dy/dx over the event; it is float32 or wider.

    Shapes: `weights`, `centres` and `log_scales` are ``[*parameters, kernel]``; ``[*parameters]``
    broadcasts against ``[*batch, *event]``.

    Source: Meng, Song, Song & Ermon 2020, "Gaussianization flows", section 3.2, with normal
    kernels for logistic ones.
    """

    def __init__(
        self,
        weights: Float[Array, "*parameters kernel"],
        centres: Float[Array, "*parameters kernel"],
        log_scales: Float[Array, "*parameters kernel"],
        event_ndims: int = 1,
    ):
        """Builds the map.

        Args:
          weights: Logits of the weights w.
          centres: Means c of the kernels.
          log_scales: Logarithms of their standard deviations s.
          event_ndims: Number of trailing axes that make an event.

        Raises:
          ValueError: If the shapes of the parameters differ, or there are no kernels.
        """
        super().__init__(event_ndims_in=event_ndims)
        parameters = map(jnp.asarray, (weights, centres, log_scales))
        self.weights, self.centres, self.log_scales = parameters
        shape = self.weights.shape
        if not shape or not shape[-1] or not shape == self.centres.shape == self.log_scales.shape:
            raise ValueError(
                "weights, centres and log_scales must have one shape [*batch, kernels] with at "
                f"least one kernel, got {shape}, {self.centres.shape} and {self.log_scales.shape}"
            )

    def _prepared(self, values: Array) -> tuple[Array, tuple[Array, Array, Array]]:
        parameters = self.weights.shape[:-1]
        if not broadcasts_to(parameters, values.shape):
            raise ValueError(
                f"{self.name}: parameters of shape {parameters} don't broadcast to the input of "
                f"shape {values.shape}"
            )
        weights, centres, log_scales = (
            leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
            for leaf in (self.weights, self.centres, self.log_scales)
        )
        kernels = jax.nn.log_softmax(weights, axis=-1), centres, log_scales
        return values.astype(jnp.promote_types(values.dtype, jnp.float32)), kernels

    def _log_det(self, kernels: tuple[Array, Array, Array], x: Array) -> Array:
        log_weights, _, log_scales = kernels
        _, z, log_probability = _smaller_tail(kernels, x)
        # The hazard of the mixture is the mean of the kernels' hazards over the tail.
        posterior = jax.nn.log_softmax(log_weights + log_tail(z), axis=-1)
        hazard = jax.nn.logsumexp(posterior + log_hazard(z) - log_scales, axis=-1)
        log_slope = hazard - log_hazard(tail_quantile(log_probability))
        return sum_event(log_slope, self.event_ndims_in)

    def _forward(self, x):
        x, kernels = self._prepared(x)
        return _gaussianized(kernels, x), self._log_det(kernels, x)

    def _inverse(self, y):
        y, kernels = self._prepared(y)
        log_weights, centres, log_scales = kernels
        # The search is for standardised values, as data have any unit. Its solution depends on
        # neither the middle nor the unit, and so they have no gradient.
        middle = lax.stop_gradient(jnp.mean(centres, axis=-1, keepdims=True))
        log_unit = lax.stop_gradient(_log_deviation(centres - middle, log_scales))
        unit = jnp.exp(log_unit)
        scaled = log_weights, (centres - middle) / unit, log_scales - log_unit
        x = middle[..., 0] + unit[..., 0] * solve_monotone(_gaussianized, scaled, y)
        return x, -self._log_det(kernels, x)


def _log_deviation(centres: Array, log_scales: Array) -> Array:
    """Computes the log deviation of kernels of equal weight about zero, squares in their unit."""
    widest = jnp.exp(jnp.max(log_scales, axis=-1, keepdims=True))
    farthest = jnp.max(jnp.abs(centres), axis=-1, keepdims=True)
    log_most = jnp.log(jnp.maximum(widest, farthest))
    squares = (centres * jnp.exp(-log_most)) ** 2 + jnp.exp(2 * (log_scales - log_most))
    return log_most + jnp.log(jnp.mean(squares, axis=-1, keepdims=True)) / 2


def _smaller_tail(kernels: tuple[Array, Array, Array], x: Array) -> tuple[Array, Array, Array]:
    """Computes the smaller tail probability of each element.

    Returns:
      1 above the median and -1 below; the distances to the kernels' centres in units of their
      scales, towards that side; and the logarithm of the probability beyond x on that side.
    """
    log_weights, centres, log_scales = kernels
    z = (x[..., None] - centres) * jnp.exp(-log_scales)
    above = jax.nn.logsumexp(log_weights + log_tail(z), axis=-1)
    below = jax.nn.logsumexp(log_weights + log_tail(-z), axis=-1)
    is_above = above < below
    side = jnp.where(is_above, 1.0, -1.0).astype(z.dtype)
    # At the median both are equal: a minimum would have the mean of their derivatives, zero.
    return side, side[..., None] * z, jnp.where(is_above, above, below)


def _gaussianized(kernels: tuple[Array, Array, Array], x: Array) -> Array:
    side, _, log_probability = _smaller_tail(kernels, x)
    return side * tail_quantile(log_probability)


def mixture_of_quantiles(
    data: Float[Array, "row channel"], kernels: int
) -> tuple[Float[Array, "channel kernel"], Float[Array, "channel kernel"]]:
    """Computes kernels of equal weight whose mixture approximates each channel's distribution.

    Centres are quantiles at equal distances in probability. The scale of a kernel is the mean
    distance to its neighbours, which compensates for the smaller variance of quantiles. No scale is
    less than 0.02 standard deviations, so that equal data don't make it vanish. The first and last
    are at least half the distance to the extreme of the data, which further steps would otherwise
    move outwards.

    Args:
      data: A batch.
      kernels: Number of kernels of each channel.

    Returns:
      ``centres`` and ``log_scales`` of a `MixtureGaussianization`.
    """
    statistics = column_statistics(data)
    log_scale = statistics.log_scale()
    if kernels == 1:
        return statistics.mean[:, None], log_scale[:, None]
    levels = (jnp.arange(kernels) + 0.5) / kernels
    centres = jnp.quantile(data, levels, axis=0).T
    gaps = jnp.diff(centres, axis=1)
    before = jnp.concatenate([gaps[:, :1], gaps], axis=1)
    after = jnp.concatenate([gaps, gaps[:, -1:]], axis=1)
    scales = jnp.maximum((before + after) / 2, MIN_RELATIVE_SCALE * jnp.exp(log_scale)[:, None])
    scales = scales.at[:, 0].max((centres[:, 0] - jnp.min(data, axis=0)) / 2)
    scales = scales.at[:, -1].max((jnp.max(data, axis=0) - centres[:, -1]) / 2)
    return centres, jnp.log(scales)


@jax.custom_jvp
def log_tail(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Computes log P(Z > z) for a standard normal Z."""
    return jnp.where(z < FAR, _log_tail_near(z), _log_density(z) - _log_hazard_far(z))


@log_tail.defjvp
def _log_tail_jvp(primals, tangents):
    (z,), (dz,) = primals, tangents
    return log_tail(z), -jnp.exp(log_hazard(z)) * dz


@jax.custom_jvp
def log_hazard(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Computes log h(z) of the hazard h(z) = density(z) / P(Z > z), which approaches z."""
    near = jnp.minimum(z, FAR)
    return jnp.where(z < FAR, _log_density(near) - _log_tail_near(near), _log_hazard_far(z))


@log_hazard.defjvp
def _log_hazard_jvp(primals, tangents):
    (z,), (dz,) = primals, tangents
    return log_hazard(z), _excess(z) * dz


def _log_tail_near(z: Array) -> Array:
    below = jnp.log1p(-lax.erfc(-jnp.minimum(z, 0) / math.sqrt(2)) / 2)
    above = jnp.log(lax.erfc(jnp.clip(z, 0, FAR) / math.sqrt(2)) / 2)
    return jnp.where(z < 0, below, above)


def _excess(z: Array) -> Array:
    """h(z) - z, the derivative of log h."""
    near = jnp.minimum(z, FAR)
    return jnp.where(z < FAR, jnp.exp(log_hazard(near)) - near, _excess_far(z))


def _excess_far(z: Array) -> Array:
    """h(z) - z for large z: 1 / (z + 2 / (z + 3 / (z + ...)))."""
    z = jnp.maximum(z, FAR)
    fraction = z
    for term in range(TERMS, 1, -1):
        fraction = z + term / fraction
    return 1 / fraction


def _log_hazard_far(z: Array) -> Array:
    return jnp.log(jnp.maximum(z, FAR) + _excess_far(z))


def _log_density(z: Array) -> Array:
    return -(z**2) / 2 - math.log(2 * math.pi) / 2


@CustomJVP
def tail_quantile(log_probability: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Computes z with P(Z > z) = p from log p, for p of at most 1/2.

    By Newton's method on log P, which is concave: from the upper bound sqrt(-2 log(2 p)) it
    descends to z without overshooting.
    """
    # Rounding may carry probabilities above a half.
    z = jnp.sqrt(jnp.maximum(-2 * (log_probability + math.log(2)), 0))

    def improve(_, z):
        return z + (log_tail(z) - log_probability) * jnp.exp(-log_hazard(z))

    return lax.fori_loop(0, NEWTON_STEPS, improve, z)


@tail_quantile.defjvp
def _tail_quantile_jvp(primals, tangents):
    (log_probability,), (change,) = primals, tangents
    z = tail_quantile(log_probability)
    return z, -change * jnp.exp(-log_hazard(z))
