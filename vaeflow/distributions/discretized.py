"""Distributions of discretised pixel intensities: categorical, and logistic mixtures.

Intensity k of L is the value (k + 1/2) / L - 1/2, the center of its cell of width 1 / L.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from tensorflow_probability.substrates.jax.distributions import RegisterKL

from vaeflow._util.arrays import check_event_shape, check_same_event, sum_event
from vaeflow._util.derivatives import quotient
from vaeflow.distributions.bernoulli import FactorizedLogits

LogMass = Callable[[Int[Array, ""]], Float[Array, "*batch_and_event"]]


class DiscretizedIntensities(FactorizedLogits):
    """Base class: independent dimensions, each with one of L intensities.

    Moments, entropies and distribution functions are sums over the intensities, one after another,
    in memory that doesn't grow with their number.
    """

    parameter_ndims = 1

    @property
    @abc.abstractmethod
    def num_intensities(self) -> int:
        """Number L of intensities."""

    @abc.abstractmethod
    def log_masses(self) -> LogMass:
        """Prepares a function that computes the log-probability of an intensity, by dimension."""

    def log_cdf(self, value: Float[Array, "*batch_and_event"]) -> Float[Array, "*batch"]:
        """Computes the logarithm of the probability that no dimension exceeds its value."""
        check_event_shape(self.name, value.shape, self.event_shape)
        # Rounded values needn't equal the centers exactly.
        last = jnp.floor((value + 0.5) * self.num_intensities - 0.5 + 1e-3)

        def add(total: Array, level: Array, log_mass: Array) -> Array:
            return jnp.where(level <= last, jnp.logaddexp(total, log_mass), total)

        shape = jnp.broadcast_shapes(value.shape, self._batch_and_event)
        total = jnp.minimum(self._fold(add, jnp.full(shape, -jnp.inf, self.dtype)), 0)
        return sum_event(jnp.where(jnp.isnan(value), jnp.nan, total), self._event_ndims)

    def mean(self) -> Float[Array, "*batch_and_event"]:
        """The mean of each dimension."""
        return self._sum(lambda level, log_mass: self._center(level))

    def variance(self) -> Float[Array, "*batch_and_event"]:
        """The variance of each dimension."""
        mean = self.mean()
        return self._sum(lambda level, log_mass: (self._center(level) - mean) ** 2)

    def mode(self) -> Float[Array, "*batch_and_event"]:
        """The most probable value of each dimension, the least of equally probable ones."""

        def better(best: tuple[Array, Array], level: Array, log_mass: Array):
            more = log_mass > best[0]
            return jnp.where(more, log_mass, best[0]), jnp.where(more, level, best[1])

        none = jnp.full(self._batch_and_event, -jnp.inf, self.dtype)
        _, level = self._fold(better, (none, jnp.zeros(self._batch_and_event, jnp.int32)))
        return self._center(level)

    def median(self) -> Float[Array, "*batch_and_event"]:
        """The least median of each dimension."""

        def count(carry: tuple[Array, Array], level: Array, log_mass: Array):
            del level
            total = carry[0] + jnp.exp(log_mass)
            return total, carry[1] + (total < 0.5)

        none = jnp.zeros(self._batch_and_event, self.dtype)
        _, level = self._fold(count, (none, jnp.zeros(self._batch_and_event, jnp.int32)))
        return self._center(level)

    def entropy(self) -> Float[Array, "*batch"]:
        """Entropy in nats."""
        return sum_event(self._sum(lambda level, log_mass: -log_mass), self._event_ndims)

    def _center(self, level: Int[Array, "*shape"]) -> Float[Array, "*shape"]:
        return (level + 0.5).astype(self.dtype) / self.num_intensities - 0.5

    def _sum(self, function: Callable[[Array, Array], Array]) -> Float[Array, "*batch_and_event"]:
        """Sums the probability of each intensity times a function of it and of its logarithm."""

        def add(total: Array, level: Array, log_mass: Array) -> Array:
            # 0 times infinity is 0 here.
            some = log_mass > -jnp.inf
            value = function(level, jnp.where(some, log_mass, 0.0))
            return total + jnp.where(some, jnp.exp(log_mass) * value, 0.0)

        return self._fold(add, jnp.zeros(self._batch_and_event, self.dtype))

    def _fold(self, step: Callable[[Any, Array, Array], Any], start: Any) -> Any:
        """Folds ``step(carry, level, log_mass)`` over the intensities."""
        log_mass_of = self.log_masses()

        @jax.checkpoint
        def body(carry: Any, level: Array) -> tuple[Any, None]:
            return step(carry, level, log_mass_of(level)), None

        return jax.lax.scan(body, start, jnp.arange(self.num_intensities, dtype=jnp.int32))[0]


@RegisterKL(DiscretizedIntensities, DiscretizedIntensities)
def _kl_of_intensities(
    p: DiscretizedIntensities, q: DiscretizedIntensities, **kwargs: Any
) -> Float[Array, "*batch"]:
    """Computes KL(p || q) in nats."""
    del kwargs
    check_same_event(p, q)
    if p.num_intensities != q.num_intensities:
        raise ValueError(
            "both must have one number of intensities, got "
            f"{p.num_intensities} and {q.num_intensities}"
        )
    log_mass_of = q.log_masses()
    batch = jnp.broadcast_shapes(p.batch_shape, q.batch_shape)

    def add(total: Array, level: Array, log_mass: Array) -> Array:
        ratio = jnp.where(log_mass > -jnp.inf, log_mass - log_mass_of(level), 0.0)
        return total + jnp.exp(log_mass) * ratio

    start = jnp.zeros((*batch, *p.event_shape), jnp.promote_types(p.dtype, q.dtype))
    return sum_event(p._fold(add, start), len(p.event_shape))


class DiscretizedLogisticMixture(DiscretizedIntensities):
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

    @property
    def num_intensities(self) -> int:
        """Number L of intensities."""
        return 2**self._bits

    def log_prob(self, value: Float[Array, "*batch_and_event"]) -> Float[Array, "*batch"]:
        """Computes log P(x) in nats.

        Raises:
          ValueError: If the events have another shape.
        """
        check_event_shape("DiscretizedLogisticMixture", value.shape, self.event_shape)
        return sum_event(self._log_mass_of(value), self._event_ndims)

    def log_masses(self) -> LogMass:
        """Prepares a function that computes the log-probability of an intensity, by dimension."""
        return lambda level: self._log_mass_of(self._center(level))

    def _log_mass_of(self, value: Array) -> Array:
        """Computes the log-probability of each dimension's value."""
        half = 2.0 ** -(self._bits + 1)
        value = value[..., None]
        above = quotient(value + half - self._location, self._scale)
        below = quotient(value - half - self._location, self._scale)
        up_to, beyond = jax.nn.log_sigmoid(above), jax.nn.log_sigmoid(-below)
        between = up_to + beyond + jnp.log(-jnp.expm1(-quotient(2 * half, self._scale)))
        # Rounded values needn't equal the ends exactly.
        first, last = value < -0.5 + 1.5 * half, value > 0.5 - 1.5 * half
        log_prob = jnp.where(first, up_to, jnp.where(last, beyond, between))
        weighted = jax.nn.log_softmax(self._logits, axis=-1) + log_prob
        return jax.nn.logsumexp(weighted, axis=-1)

    def mean(self) -> Float[Array, "*batch_and_event"]:
        """The mean of each dimension.

        It is the last value less the sum of the distribution function at the edges between cells.
        """
        weights, num = jax.nn.softmax(self._logits, axis=-1), self.num_intensities
        # Components below the middle are reflected, which keeps the digits of the sums.
        low = self._location < 0
        location = jnp.where(low, -self._location, self._location)
        beyond = (num - 1) / 2 - _sum_of_sigmoids(location * num, self._scale * num, num)
        return jnp.sum(weights * jnp.where(low, -beyond, beyond), axis=-1) / num

    def _sample_n(self, key: Array, n: int) -> Array:
        first, second = jax.random.split(key)
        shape = (n, *self._logits.shape[:-1])
        component = jax.random.categorical(first, self._logits, shape=shape)[..., None]
        mean, scale = (
            jnp.take_along_axis(jnp.broadcast_to(leaf, (n, *leaf.shape)), component, -1)[..., 0]
            for leaf in (self._location, self._scale)
        )
        return nearest_intensity(
            mean + scale * jax.random.logistic(second, shape, scale.dtype), self._bits
        )


class PixelCategorical(DiscretizedIntensities):
    """Independent categorical distributions of pixel intensities.

    Shapes: `logits` are ``[*batch, *event, intensity]``, events being `event_ndims` axes. Values
    are (k + 1/2) / L - 1/2 for intensities k of L.

    Source: van den Oord, Kalchbrenner & Kavukcuoglu 2016, "Pixel recurrent neural networks",
    section 2.2.
    """

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

    def log_masses(self) -> LogMass:
        """Prepares a function that computes the log-probability of an intensity, by dimension."""
        table = jax.nn.log_softmax(self._logits, axis=-1)
        return lambda level: jnp.take(table, level, axis=-1)

    def _sample_n(self, key: Array, n: int) -> Array:
        shape = (n, *self._logits.shape[:-1])
        return self._center(jax.random.categorical(key, self._logits, shape=shape))


def nearest_intensity(value: Float[Array, "*shape"], bits: int) -> Float[Array, "*shape"]:
    """Returns the center of the cell that contains each value, clipped to the range."""
    levels = 2.0**bits
    return (jnp.clip(jnp.floor((value + 0.5) * levels), 0, levels - 1) + 0.5) / levels - 0.5


def _sum_of_sigmoids(
    location: Float[Array, "*shape"], scale: Float[Array, "*shape"], num: int
) -> Float[Array, "*shape"]:
    """Computes sum_e s((e - m) / r) over the num - 1 edges e between cells of width 1 around 0.

    Narrow sigmoids differ from steps at few edges. The sums of wide ones follow Euler and
    Maclaurin's formula for midpoints, whose rest is below the rounding of means.

    Args:
      location: m, at least 0.
      scale: r.
      num: Number of cells.
    """
    double = scale.dtype == jnp.float64
    least, reach = (4.0, 144) if double else (0.75, 12)
    last = num / 2 - 1
    large = jnp.maximum(scale, least)
    inverse = 1 / large
    left, right = (-last - 0.5 - location) * inverse, (last + 0.5 - location) * inverse
    # Nothing is lost by the bound but numbers too small to be fast.
    at_left, at_right = (jnp.exp(jnp.maximum(-jnp.abs(end), -40)) for end in (left, right))
    # The difference of softplus at the ends.
    width = (2 * last + 1) * inverse
    near = width < 1
    ratio = jnp.where(near, jnp.expm1(jnp.minimum(width, 1)) * at_left, at_right - at_left)
    rise = jnp.log1p(ratio / (1 + at_left)) + jnp.where(near, 0, jnp.maximum(right, 0))

    def correction(exponential: Array) -> Array:
        slope = exponential / (1 + exponential) ** 2
        fifth = 31 / 967680 * (1 - 30 * slope + 120 * slope**2)
        third = 7 / 5760 * (1 - 6 * slope) - inverse**2 * fifth
        return slope * inverse * (1 / 24 - inverse**2 * third)

    wide = large * rise - correction(at_right) + correction(at_left)

    @jax.checkpoint
    def narrow(location: Array, scale: Array) -> Array:
        rate = 1 / jnp.clip(scale, 1e-15, least)
        first = jnp.floor(location)
        apart = location - first

        def add(total: Array, step: Array) -> tuple[Array, None]:
            before = jax.nn.sigmoid(jnp.maximum(-(apart + step) * rate, -40))
            after = jax.nn.sigmoid(jnp.maximum((apart - 1 - step) * rate, -40))
            total += jnp.where(jnp.abs(first - step) <= last, before, 0)
            return total - jnp.where(first + 1 + step <= last, after, 0), None

        steps = jnp.arange(reach, dtype=scale.dtype)
        return jax.lax.scan(add, jnp.maximum(last - first, 0), steps, unroll=12)[0]

    is_narrow = scale < least
    # A branch of its own: in one piece both would be slower.
    return jax.lax.cond(
        jnp.any(is_narrow),
        lambda: jnp.where(is_narrow, narrow(location, scale), wide),
        lambda: wide,
    )
