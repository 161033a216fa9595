"""Distributions transformed by a bijector, and samples with one key for each example."""

from __future__ import annotations

from typing import Any

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from tensorflow_probability.substrates.jax.distributions import RegisterKL


class Transformed(distrax.Transformed):
    """Transformed distribution: that of f(z) for z from a base distribution.

    log p(x) = log base(f^-1(x)) + log|det df^-1/dx|: -inf outside the range of f, and NaN where x
    isn't finite, since a map onto an interval would clip infinity to a point near its end. Where
    f rounds a sample to the last number of its type before an end of its range, as `Exp` does
    beyond 87 and `Sigmoid` near 1, the log-density that `sample_and_log_prob` returns is that of
    the noise, and `log_prob` of the sample that of the rounded value.

    The mean has a closed form where the Jacobian is constant; mode and entropy where its
    determinant is; the KL divergence to another transformed distribution where both have the same
    bijector, with the very same arrays (`same_as`), and the bases have one.

    Samples pass the bijector as one batch with leading sample axes, where distrax maps it over each
    sample: bijectors of this package accept any number of batch axes, and a context with batch axes
    of its own broadcasts.
    """

    def log_prob(self, value: Float[Array, "*batch_and_event"]) -> Float[Array, "*batch"]:
        """Computes log p(x) in nats; batch axes broadcast against those of the distribution."""
        value = jnp.asarray(value)
        event_shape = value.shape[value.ndim - self.bijector.event_ndims_out :]
        batch = value.shape[: value.ndim - len(event_shape)]
        # That of the base: flows with probes for each row have no shape without the rows.
        own = self.distribution.batch_shape
        if len(batch) < len(own) or 1 in batch:
            batch = jnp.broadcast_shapes(batch, own)
            value = jnp.broadcast_to(value, (*batch, *event_shape))
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
        # Not cached in an attribute, as distrax does: that changes the pytree and so retraces.
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


@RegisterKL(Transformed, Transformed)
def _kl_of_same_bijector(p: Transformed, q: Transformed, *args: Any, **kwargs: Any) -> Array:
    # Rather than distrax's, which takes bijectors of the same program for the same bijector.
    del args, kwargs
    if p.bijector is not q.bijector and not p.bijector.same_as(q.bijector):
        raise NotImplementedError(
            "Transformed: the KL divergence has a closed form only where both have the same "
            f"bijector; got {p.bijector.name} and {q.bijector.name} of other arrays"
        )
    return p.distribution.kl_divergence(q.distribution)


def sample_per_example(
    distribution: distrax.Distribution, keys: Array, samples: int
) -> tuple[Float[Array, "sample batch *event"], Float[Array, "sample batch"]]:
    """Samples each row of a distribution, with log-densities in nats.

    The noise of a row depends only on its key, not on how the batch is divided. No inverse is
    taken: a `Transformed` distribution goes from the noise of its base to the samples.

    Args:
      distribution: With the one batch axis ``[batch]``; apart from the bijectors of a
        `Transformed`, which broadcast, every leaf has that axis first.
      keys: A typed key for each row, ``[batch]``.
      samples: Number of samples of each row.

    Raises:
      ValueError: If the batch axes of the distribution aren't those of the keys.
    """
    if distribution.batch_shape != keys.shape:
        raise ValueError(
            f"keys must have the batch axis of the distribution, {distribution.batch_shape}, got "
            f"shape {keys.shape}"
        )
    if isinstance(distribution, Transformed):
        noise, log_prob = sample_per_example(distribution.distribution, keys, samples)
        values, log_det = distribution.bijector.forward_and_log_det(noise)
        return values, log_prob - log_det

    def row(distribution: distrax.Distribution, key: Array) -> tuple[Array, Array]:
        return distribution.sample_and_log_prob(seed=key, sample_shape=samples)

    values, log_prob = jax.vmap(row, out_axes=1)(distribution, keys)
    return values, log_prob.astype(jnp.promote_types(log_prob.dtype, jnp.float32))
