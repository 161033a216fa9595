"""Distributions of discretised pixel intensities: categorical, and logistic mixtures.

Intensity k of L is the value (k + 1/2) / L - 1/2, the center of its cell of width 1 / L.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.arrays import check_event_shape, sum_event
from vaeflow.distributions.bernoulli import FactorizedLogits


class DiscretizedLogisticMixture(FactorizedLogits):
    """Mixtures of discretised logistic distributions, one for each dimension.

    P(x) = sum_k w_k [s((x + d - m_k) / r_k) - s((x - d - m_k) / r_k)], where s is the logistic
    sigmoid and d = 2^-(bits + 1) half a cell; the first and the last cell include the tails.
    With a = (x + d - m) / r and b = (x - d - m) / r the bracket is computed as
    s(a) s(-b) (1 - exp(b - a)), whose logarithm has no cancellation and is finite everywhere.

    Shapes: `logits`, `mean` and `scale` are ``[*batch, *event, component]``, events being
    `event_ndims` axes. Values are (k + 1/2) / 2^bits - 1/2 for intensities k.

    Source: Kingma et al. 2016, "Inverse autoregressive flow", section 5.1; Salimans, Karpathy, Chen
    & Kingma 2017, "PixelCNN++", section 2.1, without its conditioning of channels on each other.
    """

    parameter_ndims = 1

    def __init__(
        self,
        logits: Float[Array, "*batch_and_event component"],
        mean: Float[Array, "*batch_and_event component"],
        scale: Float[Array, "*batch_and_event component"],
        event_ndims: int,
        bits: int = 8,
    ):
        """Builds the distribution.

        Args:
          logits: Logarithms of the weights, up to a constant for each dimension.
          mean: Means of the logistic distributions.
          scale: Their scales r, above 0.
          event_ndims: Number of axes before the last that make an event.
          bits: The number of intensities is 2^bits.

        Raises:
          ValueError: If the shapes differ.
        """
        super().__init__(logits, event_ndims)
        if not logits.shape == mean.shape == scale.shape:
            raise ValueError(
                "logits, mean and scale must have one shape, got "
                f"{logits.shape}, {mean.shape} and {scale.shape}"
            )
        self._location, self._scale = (leaf.astype(self.dtype) for leaf in (mean, scale))
        self._bits = bits

    def log_prob(self, value: Float[Array, "*batch_and_event"]) -> Float[Array, "*batch"]:
        """Computes log P(x) in nats.

        Raises:
          ValueError: If the events have another shape.
        """
        check_event_shape("DiscretizedLogisticMixture", value.shape, self.event_shape)
        half = 2.0 ** -(self._bits + 1)
        value = value[..., None]
        above = (value + half - self._location) / self._scale
        below = (value - half - self._location) / self._scale
        up_to, beyond = jax.nn.log_sigmoid(above), jax.nn.log_sigmoid(-below)
        between = up_to + beyond + jnp.log(-jnp.expm1(-2 * half / self._scale))
        # Rounded values needn't equal the ends exactly.
        first, last = value < -0.5 + 1.5 * half, value > 0.5 - 1.5 * half
        log_prob = jnp.where(first, up_to, jnp.where(last, beyond, between))
        weighted = jax.nn.log_softmax(self._logits, axis=-1) + log_prob
        return sum_event(jax.nn.logsumexp(weighted, axis=-1), self._event_ndims)

    def mean(self) -> Float[Array, "*batch_and_event"]:
        """The mean of the logistic distributions, each clipped to the range."""
        weights = jax.nn.softmax(self._logits, axis=-1)
        return jnp.sum(weights * jnp.clip(self._location, -0.5, 0.5), axis=-1)

    def _sample_n(self, key: Array, n: int) -> Array:
        first, second = jax.random.split(key)
        shape = (n, *self._logits.shape[:-1])
        component = jax.random.categorical(first, self._logits, shape=shape)[..., None]
        mean, scale = (
            jnp.take_along_axis(jnp.broadcast_to(leaf, (n, *leaf.shape)), component, -1)[..., 0]
            for leaf in (self._location, self._scale)
        )
        return nearest_intensity(mean + scale * jax.random.logistic(second, shape), self._bits)


class PixelCategorical(FactorizedLogits):
    """Independent categorical distributions of pixel intensities.

    Shapes: `logits` are ``[*batch, *event, intensity]``, events being `event_ndims` axes. Values
    are (k + 1/2) / L - 1/2 for intensities k of L.

    Source: van den Oord, Kalchbrenner & Kavukcuoglu 2016, "Pixel recurrent neural networks",
    section 2.2.
    """

    parameter_ndims = 1

    @property
    def num_intensities(self) -> int:
        """Number L of intensities."""
        return self._logits.shape[-1]

    def log_prob(self, value: Float[Array, "*batch_and_event"]) -> Float[Array, "*batch"]:
        """Computes log P(x) in nats.

        Raises:
          ValueError: If the events have another shape.
        """
        check_event_shape("PixelCategorical", value.shape, self.event_shape)
        level = jnp.clip(
            jnp.floor((value + 0.5) * self.num_intensities), 0, self.num_intensities - 1
        )
        chosen = jax.nn.one_hot(level.astype(jnp.int32), self.num_intensities, dtype=self.dtype)
        log_prob = jnp.sum(chosen * self._logits, axis=-1) - jax.nn.logsumexp(self._logits, axis=-1)
        # NaN has no intensity.
        return sum_event(jnp.where(jnp.isnan(value), jnp.nan, log_prob), self._event_ndims)

    def mean(self) -> Float[Array, "*batch_and_event"]:
        """The mean of each dimension."""
        centers = (jnp.arange(self.num_intensities) + 0.5) / self.num_intensities - 0.5
        return jnp.sum(jax.nn.softmax(self._logits, axis=-1) * centers, axis=-1)

    def _sample_n(self, key: Array, n: int) -> Array:
        level = jax.random.categorical(key, self._logits, shape=(n, *self._logits.shape[:-1]))
        return (level + 0.5).astype(self.dtype) / self.num_intensities - 0.5


def nearest_intensity(value: Float[Array, "*shape"], bits: int) -> Float[Array, "*shape"]:
    """Returns the center of the cell that contains each value, clipped to the range."""
    levels = 2.0**bits
    return (jnp.clip(jnp.floor((value + 0.5) * levels), 0, levels - 1) + 0.5) / levels - 0.5
