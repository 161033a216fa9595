"""Distributions pushed forward through a bijector."""

from __future__ import annotations

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Transformed(distrax.Transformed):
    """The distribution of f(z) for z from a base distribution.

    log p(x) = log base(f^-1(x)) + log|det df^-1/dx|, and NaN where x isn't finite: a map onto an
    interval would take infinity for a point near its end.

    Samples pass the bijector as one batch with leading sample axes, where distrax maps it over each
    sample: bijectors of this package accept any number of batch axes, and a context with batch axes
    of its own broadcasts.
    """

    def log_prob(self, value: Float[Array, "*batch_and_event"]) -> Float[Array, "*batch"]:
        """Computes log p(x) in nats."""
        noise, log_det = self.bijector.inverse_and_log_det(value)
        event = tuple(range(value.ndim - self.bijector.event_ndims_out, value.ndim))
        finite = jnp.all(jnp.isfinite(value), axis=event)
        return jnp.where(finite, self.distribution.log_prob(noise) + log_det, jnp.nan)

    def _sample_n(self, key: Array, n: int) -> Array:
        return self.bijector.forward(self.distribution.sample(seed=key, sample_shape=n))

    def _sample_n_and_log_prob(self, key: Array, n: int) -> tuple[Array, Array]:
        noise, log_prob = self.distribution.sample_and_log_prob(seed=key, sample_shape=n)
        x, log_det = self.bijector.forward_and_log_det(noise)
        return x, log_prob - log_det

    def _shape(self) -> jax.ShapeDtypeStruct:
        # Computed anew each time: distrax keeps the answer in an attribute, which changes the
        # pytree and so retraces.
        base = self.distribution
        zeros = jax.ShapeDtypeStruct((*base.batch_shape, *base.event_shape), base.dtype)
        return jax.eval_shape(self.bijector.forward, zeros)

    @property
    def dtype(self):
        """Type of the samples."""
        return self._shape().dtype

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        shape = self._shape().shape
        return shape[len(shape) - self.bijector.event_ndims_out :]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of distributions."""
        shape = self._shape().shape
        return shape[: len(shape) - self.bijector.event_ndims_out]
