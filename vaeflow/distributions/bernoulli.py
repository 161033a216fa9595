"""Bernoulli distributions of images."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors.base import check_event_shape, sum_event
from vaeflow.distributions.entrywise import Entrywise


class Bernoulli(Entrywise):
    """Independent entries that are 0 or 1: log P(x) = sum_i x_i l_i - softplus(l_i).

    l_i are logits, log P(1) - log P(0). One formula for both values, of which only the softplus is
    transcendental and neither overflows. Values between 0 and 1 get the expectation over entries
    that are 1 with that probability.

    Shapes: events are the last `event_ndims` axes of the logits, ``[*batch, *event]``.
    """

    def log_prob(self, value: Float[Array, "*batch_and_event"]) -> Float[Array, "*batch"]:
        """Computes log P(x) in nats.

        Raises:
          ValueError: If the events have another shape.
        """
        check_event_shape("Bernoulli", value.shape, self.event_shape)
        terms = value * self._logits - _softplus(self._logits)
        return sum_event(terms, self._event_ndims)

    def mean(self) -> Float[Array, "*batch_and_event"]:
        """Probability of a 1."""
        return jax.nn.sigmoid(self._logits)

    def mode(self) -> Float[Array, "*batch_and_event"]:
        """The more probable value of each entry."""
        return (self._logits > 0).astype(self.dtype)

    def entropy(self) -> Float[Array, "*batch"]:
        """Entropy in nats."""
        terms = _softplus(self._logits) - self._logits * self.mean()
        return sum_event(terms, self._event_ndims)

    def _sample_n(self, key: Array, n: int) -> Array:
        uniform = jax.random.uniform(key, (n, *self._logits.shape))
        return (uniform < self.mean()).astype(self.dtype)


def _softplus(x: Array) -> Array:
    """Computes log(1 + exp(x)), whose gradient here reuses the exponential.

    `jax.nn.softplus` takes one and a half times as long with its gradient, on CPUs.
    """
    # One condition for both parts, so that the derivative at 0 is a half.
    positive = x >= 0
    return jnp.where(positive, x, 0) + jnp.log1p(jnp.exp(jnp.where(positive, -x, x)))
