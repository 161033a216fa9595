"""The Concrete (Gumbel-softmax) distribution: a continuous relaxation of categorical variables."""

from __future__ import annotations

import math

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.arrays import check_event_shape


class Concrete(distrax.Distribution):
    """Concrete distribution on the simplex: softmax((l + g) / t) for Gumbel noise g.

    As the temperature t falls to 0 the samples become one-hot vectors with probabilities
    pi = softmax(l). The log-density is log (K - 1)! + (K - 1) log t +
    sum_k (log pi_k - (t + 1) log x_k) - K log sum_k exp(log pi_k - t log x_k). Its moments and its
    entropy have no closed form; the probabilities pi are those of the largest dimension.

    Shapes: events are ``[category]``, K of them.

    Source: Maddison, Mnih & Teh 2017, "The Concrete distribution", equation 10; Jang, Gu & Poole
    2017, "Categorical reparameterization with Gumbel-softmax".
    """

    def __init__(self, logits: Float[Array, "*batch category"], temperature: float):
        """Builds the distribution.

        Args:
          logits: Logarithms of the probabilities, up to a constant.
          temperature: t, above 0.

        Raises:
          ValueError: If the temperature isn't above 0.
        """
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        self._log_probability = jax.nn.log_softmax(logits, axis=-1)
        self._temperature = temperature

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self._log_probability.shape[-1:]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of distributions."""
        return self._log_probability.shape[:-1]

    @property
    def dtype(self):
        """Type of the samples."""
        return self._log_probability.dtype

    @property
    def log_probability(self) -> Float[Array, "*batch category"]:
        """Logarithms of the probabilities pi of the categories."""
        return self._log_probability

    @property
    def probability(self) -> Float[Array, "*batch category"]:
        """The probabilities pi of the categories: the mean in the limit of temperature 0."""
        return jnp.exp(self._log_probability)

    def log_prob(self, value: Float[Array, "*batch category"]) -> Float[Array, "*batch"]:
        """Computes the log-density in nats, with respect to the first K - 1 dimensions.

        Raises:
          ValueError: If the events have another shape.
        """
        check_event_shape("Concrete", value.shape, self.event_shape)
        size = self.event_shape[0]
        log_value = jnp.log(jnp.maximum(value, jnp.finfo(self.dtype).tiny))
        scaled = self._log_probability - self._temperature * log_value
        constant = math.lgamma(size) + (size - 1) * math.log(self._temperature)
        return (
            constant
            + jnp.sum(scaled - log_value, axis=-1)
            - size * jax.nn.logsumexp(scaled, axis=-1)
        )

    def log_mass(self, value: Float[Array, "*batch category"]) -> Float[Array, "*batch"]:
        """Computes sum_k x_k log pi_k: at a corner, the log-probability of its category."""
        check_event_shape("Concrete", value.shape, self.event_shape)
        return jnp.sum(value * self._log_probability, axis=-1)

    def mode(self) -> Float[Array, "*batch category"]:
        """The corner of the most probable category.

        Below a temperature of K - 1 the density grows without bound towards every corner, with the
        largest factor towards this one.

        Raises:
          NotImplementedError: If the temperature is K - 1 or more: the mode has no closed form.
        """
        if self._temperature >= self.event_shape[0] - 1:
            raise NotImplementedError(
                "The mode of a Concrete distribution has no closed form at a temperature of "
                f"{self._temperature}, which isn't below {self.event_shape[0]} categories less 1."
            )
        best = jnp.argmax(self._log_probability, axis=-1)
        return jax.nn.one_hot(best, self.event_shape[0], dtype=self.dtype)

    def _sample_n(self, key: Array, n: int) -> Array:
        noise = jax.random.gumbel(key, (n, *self._log_probability.shape), self.dtype)
        return jax.nn.softmax((self._log_probability + noise) / self._temperature, axis=-1)
