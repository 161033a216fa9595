"""Uniform distributions on axis-aligned boxes."""

from __future__ import annotations

from typing import Any

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from tensorflow_probability.substrates.jax.distributions import RegisterKL

from vaeflow._util.arrays import check_event_shape, check_same_event, sum_event


class UniformBox(distrax.Distribution):
    """Independent uniforms on the box from `low` to `high`.

    log p(x) = -sum_i log(high_i - low_i) inside and on the border, -inf outside, in nats and
    float32 or wider. Gradients are finite everywhere, and zero with respect to x; NaN gives NaN.
    Samples low + (high - low) u are reparameterised.

    Shapes: `low` and `high` are ``[*batch, *event]``.
    """

    def __init__(
        self,
        low: Float[Array, "*batch_and_event"],
        high: Float[Array, "*batch_and_event"],
        event_ndims: int = 1,
    ):
        """Builds the distribution.

        Args:
          low: Lower corner.
          high: Upper corner, above the lower one in each dimension; unchecked, as it may be traced.
          event_ndims: Number of trailing axes that make an event.

        Raises:
          ValueError: If the corners' shapes differ or have fewer axes than an event.
        """
        super().__init__()
        low, high = jnp.asarray(low), jnp.asarray(high)
        if low.shape != high.shape or low.ndim < event_ndims:
            raise ValueError(
                f"low and high must have one shape of at least {event_ndims} axes, "
                f"got {low.shape} and {high.shape}"
            )
        dtype = jnp.promote_types(jnp.promote_types(low.dtype, high.dtype), jnp.float32)
        self._low, self._high = low.astype(dtype), high.astype(dtype)
        self._event_ndims = event_ndims

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self._low.shape[self._low.ndim - self._event_ndims :]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of distributions."""
        return self._low.shape[: self._low.ndim - self._event_ndims]

    @property
    def dtype(self):
        """Type of the samples."""
        return self._low.dtype

    def log_prob(self, value: Float[Array, "*batch_and_event"]) -> Float[Array, "*batch"]:
        """Computes the log-density in nats.

        Raises:
          ValueError: If the events have another shape.
        """
        check_event_shape("UniformBox", value.shape, self.event_shape)
        axes = tuple(range(-self._event_ndims, 0))
        inside = jnp.all((value >= self._low) & (value <= self._high), axis=axes)
        log_prob = jnp.where(inside, -self.entropy(), -jnp.inf)
        return jnp.where(jnp.any(jnp.isnan(value), axis=axes), jnp.nan, log_prob)

    def log_cdf(self, value: Float[Array, "*batch_and_event"]) -> Float[Array, "*batch"]:
        """Computes the logarithm of the probability that no dimension exceeds its value."""
        check_event_shape("UniformBox", value.shape, self.event_shape)
        share = jnp.clip((value - self._low) / (self._high - self._low), 0, 1)
        return sum_event(jnp.log(share), self._event_ndims)

    def _sample_n(self, key: Array, n: int) -> Array:
        return self._sample_n_and_log_prob(key, n)[0]

    def _sample_n_and_log_prob(self, key: Array, n: int) -> tuple[Array, Array]:
        uniform = jax.random.uniform(key, (n, *self._low.shape), self.dtype)
        samples = self._low + (self._high - self._low) * uniform
        # Rounding may carry the product beyond the border.
        samples = jnp.minimum(samples, self._high)
        return samples, jnp.broadcast_to(-self.entropy(), (n, *self.batch_shape))

    def mean(self) -> Float[Array, "*batch_and_event"]:
        """The center of the box."""
        return (self._low + self._high) / 2

    def variance(self) -> Float[Array, "*batch_and_event"]:
        """The variance of each dimension."""
        return (self._high - self._low) ** 2 / 12

    def mode(self) -> Float[Array, "*batch_and_event"]:
        """The center of the box, of which every point is a mode."""
        return self.mean()

    def median(self) -> Float[Array, "*batch_and_event"]:
        """The median of each dimension, which is its mean."""
        return self.mean()

    def entropy(self) -> Float[Array, "*batch"]:
        """Differential entropy in nats: the logarithm of the volume."""
        return sum_event(jnp.log(self._high - self._low), self._event_ndims)


@RegisterKL(UniformBox, UniformBox)
def _kl_of_boxes(p: UniformBox, q: UniformBox, **kwargs: Any) -> Float[Array, "*batch"]:
    """Computes KL(p || q) in nats; infinite where p has points outside of q."""
    del kwargs
    check_same_event(p, q)
    axes = tuple(range(-len(p.event_shape), 0))
    within = jnp.all((p._low >= q._low) & (p._high <= q._high), axis=axes)
    return jnp.where(within, q.entropy() - p.entropy(), jnp.inf)
