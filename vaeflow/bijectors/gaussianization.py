"""Maps of each entry that give mixtures of normals a standard normal distribution."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors.actnorm import SMALLEST_DEVIATION
from vaeflow.bijectors.amortised import broadcasts_to
from vaeflow.bijectors.base import Bijector, sum_event
from vaeflow.bijectors.normal_tail import log_hazard, log_tail, tail_quantile
from vaeflow.bijectors.numerical import solve_monotone

SMALLEST_SHARE = 0.02
"""Least scale of a kernel, in deviations of the data."""


class MixtureGaussianization(Bijector):
    """Sends each entry through the distribution function of a mixture, and to the normal scale.

        y = Phi^-1(sum_k w_k Phi((x - c_k) / s_k)),   w = softmax(weights),   s = exp(log_scales),

    where Phi is the normal distribution function: an entry distributed as the mixture becomes
    standard normal. One kernel gives y = (x - c) / s; more bend the line, which far out has the
    slope of the widest kernel. Probabilities are only handled as logarithms of the smaller tail,
    and slopes as ratios of hazards, so that values, log-determinants and their gradients stay
    finite and exact wherever the square of (x - c) / s is: to 1e19 in float32, beyond which y is
    NaN.

    Forward is the cheap direction. The inverse is found by `solve_monotone`, with NaN where it
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
          log_scales: Logarithms of their deviations s.
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
        _, places, log_share = _smaller_tail(kernels, x)
        # The hazard of the mixture is the mean of its kernels', over the tail.
        shares = jax.nn.log_softmax(log_weights + log_tail(places), axis=-1)
        hazard = jax.nn.logsumexp(shares + log_hazard(places) - log_scales, axis=-1)
        log_slope = hazard - log_hazard(tail_quantile(log_share))
        return sum_event(log_slope, self.event_ndims_in)

    def _forward(self, x):
        x, kernels = self._prepared(x)
        return _gaussianized(kernels, x), self._log_det(kernels, x)

    def _inverse(self, y):
        y, kernels = self._prepared(y)
        x = solve_monotone(_gaussianized, kernels, y)
        return x, -self._log_det(kernels, x)


def _smaller_tail(kernels: tuple[Array, Array, Array], x: Array) -> tuple[Array, Array, Array]:
    """Finds on which side of the median each entry is.

    Returns:
      1 above the median and -1 below; the distances to the kernels' centres in units of their
      scales, towards that side; and the logarithm of the probability of lying further out.
    """
    log_weights, centres, log_scales = kernels
    places = (x[..., None] - centres) * jnp.exp(-log_scales)
    above = jax.nn.logsumexp(log_weights + log_tail(places), axis=-1)
    below = jax.nn.logsumexp(log_weights + log_tail(-places), axis=-1)
    side = jnp.where(above < below, 1.0, -1.0).astype(places.dtype)
    return side, side[..., None] * places, jnp.minimum(above, below)


def _gaussianized(kernels: tuple[Array, Array, Array], x: Array) -> Array:
    side, _, log_share = _smaller_tail(kernels, x)
    return side * tail_quantile(log_share)


def mixture_of_quantiles(
    data: Float[Array, "row channel"], kernels: int
) -> tuple[Float[Array, "channel kernel"], Float[Array, "channel kernel"]]:
    """Computes kernels of equal weight whose mixture is near the distribution of each channel.

    Centres are quantiles at equal distances in probability. The scale of a kernel is the mean
    distance to its neighbours, which makes up for what quantiles lack in variance; no scale is less
    than 0.02 deviations, so that equal data don't make it vanish, and those at the ends are at
    least half the distance to the last of the data, which the next steps would throw further out.

    Args:
      data: A batch.
      kernels: Number of kernels of each channel.

    Returns:
      ``centres`` and ``log_scales`` of a `MixtureGaussianization`.
    """
    deviation = jnp.maximum(jnp.std(data, axis=0), SMALLEST_DEVIATION)
    if kernels == 1:
        return jnp.mean(data, axis=0)[:, None], jnp.log(deviation)[:, None]
    levels = (jnp.arange(kernels) + 0.5) / kernels
    centres = jnp.quantile(data, levels, axis=0).T
    gaps = jnp.diff(centres, axis=1)
    before = jnp.concatenate([gaps[:, :1], gaps], axis=1)
    after = jnp.concatenate([gaps, gaps[:, -1:]], axis=1)
    scales = jnp.maximum((before + after) / 2, SMALLEST_SHARE * deviation[:, None])
    scales = scales.at[:, 0].max((centres[:, 0] - jnp.min(data, axis=0)) / 2)
    scales = scales.at[:, -1].max((jnp.max(data, axis=0) - centres[:, -1]) / 2)
    return centres, jnp.log(scales)
