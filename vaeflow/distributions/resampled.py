"""Resampled distribution: a standard normal with a learned acceptance probability.

Source: Bauer & Mnih 2019, "Resampled priors for variational autoencoders".
"""

from __future__ import annotations

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.arrays import check_event_shape, sum_event
from vaeflow._util.derivatives import quotient
from vaeflow.bijectors import Conditioner


class Resampled(distrax.Distribution):
    """Truncated rejection sampling from a standard normal, accepting z with probability a(z).

    The T-th proposal is always accepted. p(z) = N(z) [a(z) (1 - r) / Z + r] with the acceptance
    rate Z = E a(z), and r = (1 - Z)^(T - 1), the probability that the first T - 1 are rejected.
    Samples carry no gradient to the acceptance, so it is for maximum likelihood. The density
    integrates to one as far as `share` equals Z.

    Shapes: events are ``[dimension]``; all distributions of the batch are equal.

    Source: Bauer & Mnih 2019, "Resampled priors for variational autoencoders", equation 5.
    """

    def __init__(
        self,
        acceptance: Conditioner,
        share: Float[Array, ""],
        dimension: int,
        truncation: int,
        batch_shape: tuple[int, ...] = (),
        temperature: float = 1.0,
    ):
        """Builds the distribution.

        Args:
          acceptance: From vectors to one logit of a(z).
          share: The acceptance rate Z.
          dimension: Number of dimensions of a vector.
          truncation: T, at least 1.
          batch_shape: Shape of the batch of distributions.
          temperature: Factor of the samples.

        Raises:
          ValueError: If the truncation isn't at least 1.
        """
        super().__init__()
        if truncation < 1:
            raise ValueError(f"truncation must be at least 1, got {truncation}")
        self._acceptance = acceptance
        self._share = share
        self._temperature = jnp.asarray(temperature, jnp.result_type(jnp.float32, temperature))
        self._dimension = dimension
        self._truncation = truncation
        self._batch = tuple(batch_shape)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return (self._dimension,)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of distributions."""
        return self._batch

    @property
    def dtype(self):
        """Type of the samples."""
        return self._temperature.dtype

    def log_prob(self, value: Float[Array, "*batch dimension"]) -> Float[Array, "*batch"]:
        """Computes the log-density in nats.

        Raises:
          ValueError: If the events have another shape.
        """
        check_event_shape("Resampled", value.shape, self.event_shape)
        z = quotient(value.astype(jnp.promote_types(value.dtype, self.dtype)), self._temperature)
        batch = jnp.broadcast_shapes(z.shape[:-1], self.batch_shape)
        z = jnp.broadcast_to(z, (*batch, self._dimension))
        log_none = (self._truncation - 1) * jnp.log1p(-self._share)
        log_some = jnp.log(-jnp.expm1(log_none)) - jnp.log(self._share)
        log_factor = jnp.logaddexp(self._log_acceptance(z) + log_some, log_none)
        scale = self._dimension * jnp.log(self._temperature)
        return sum_event(jax.scipy.stats.norm.logpdf(z), 1) + log_factor - scale

    def _log_acceptance(self, z: Array) -> Array:
        return jax.nn.log_sigmoid(self._acceptance(z)[..., 0])

    def _sample_n(self, key: Array, n: int) -> Array:
        shape = (n, *self.batch_shape, self._dimension)

        def propose(state):
            z, accepted, count = state
            first, second = jax.random.split(jax.random.fold_in(key, count))
            proposal = jax.random.normal(first, shape, self.dtype)
            probability = jnp.exp(self._log_acceptance(proposal))
            uniform = jax.random.uniform(second, shape[:-1], jnp.float32)
            z = jnp.where(accepted[..., None], z, proposal)
            return z, accepted | (uniform < probability), count + 1

        def unfinished(state):
            return ~jnp.all(state[1]) & (state[2] < self._truncation)

        start = (jnp.zeros(shape, self.dtype), jnp.zeros(shape[:-1], bool), 0)
        return self._temperature * jax.lax.while_loop(unfinished, propose, start)[0]
