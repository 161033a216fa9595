"""Continuous Bernoulli distributions of images."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors.base import check_event_shape, sum_event
from vaeflow.distributions.entrywise import Entrywise

SMALL = 0.05
"""Size of a logit under which series replace quotients of small numbers."""


class ContinuousBernoulli(Entrywise):
    """Independent entries of [-1/2, 1/2], each with p(x) = exp(l x) (l / 2) / sinh(l / 2).

    The continuous Bernoulli distribution moved by -1/2, which
    is where dequantizers put the values of pixels, and which makes it even in (l, x). Beyond the
    interval the density is zero.

    Shapes: events are the last `event_ndims` axes of the logits, ``[*batch, *event]``.

    Source: Loaiza-Ganem & Cunningham 2019, "The continuous Bernoulli: fixing a pervasive error in
    variational autoencoders", equations 5 and 6.
    """

    def log_prob(self, value: Float[Array, "*batch_and_event"]) -> Float[Array, "*batch"]:
        """Computes the log-density in nats.

        Raises:
          ValueError: If the events have another shape.
        """
        check_event_shape("ContinuousBernoulli", value.shape, self.event_shape)
        terms = value * self._logits - _log_normalizer(self._logits)
        outside = jnp.abs(value) > 0.5
        return sum_event(jnp.where(outside, -jnp.inf, terms), self._event_ndims)

    def mean(self) -> Float[Array, "*batch_and_event"]:
        """The mean of each entry: coth(l / 2) / 2 - 1 / l."""
        small = jnp.abs(self._logits) < SMALL
        safe = jnp.where(small, 1.0, self._logits)
        series = self._logits / 12 * (1 - self._logits**2 / 60)
        return jnp.where(small, series, 0.5 / jnp.tanh(safe / 2) - 1 / safe)

    def _sample_n(self, key: Array, n: int) -> Array:
        shape = (n, *self._logits.shape)
        uniform = jax.random.uniform(key, shape, minval=jnp.finfo(self.dtype).tiny)
        small = jnp.abs(self._logits) < SMALL
        safe = jnp.where(small, 1.0, self._logits)
        # The inverse of the distribution function, (exp(l x) - exp(-l / 2)) / (2 sinh(l / 2)).
        sum_of_ends = jnp.logaddexp(jnp.log1p(-uniform) - safe / 2, jnp.log(uniform) + safe / 2)
        series = uniform - 0.5 + self._logits / 2 * uniform * (1 - uniform)
        return jnp.clip(jnp.where(small, series, sum_of_ends / safe), -0.5, 0.5)


def _log_normalizer(logits: Array) -> Array:
    """Computes log(sinh(l / 2) / (l / 2)): l^2 / 24 near zero, |l| / 2 far out."""
    small = jnp.abs(logits) < SMALL
    size = jnp.where(small, 1.0, jnp.abs(logits))
    square = jnp.where(small, logits, 0.0) ** 2
    return jnp.where(
        small,
        square / 24 * (1 - square / 120),
        size / 2 + jnp.log(-jnp.expm1(-size)) - jnp.log(size),
    )
