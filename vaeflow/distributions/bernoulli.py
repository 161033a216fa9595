"""Bernoulli and continuous Bernoulli distributions over events of independent dimensions.

With `FactorizedLogits`, the base class of distributions that have logits for each dimension.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from tensorflow_probability.substrates.jax.distributions import RegisterKL

from vaeflow._util.arrays import check_event_shape, check_same_event, sum_event

SMALL_LOGIT = 1.0
"""Absolute value of a logit below which series replace differences of large numbers."""

MEAN_SERIES = (1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000)
"""Coefficients of l, l^3, l^5, ... in the mean of a continuous Bernoulli: B_2k l^(2k - 1) / (2k)!
with the Bernoulli numbers B_2k, which converges for |l| < 2 pi."""


class FactorizedLogits(distrax.Distribution):
    """Base class: independent dimensions, each with its logits, in float32 or wider.

    Shapes: logits are ``[*batch, *event, *parameters]``, where the event has `event_ndims` axes and
    the parameters of one dimension `parameter_ndims` axes.
    """

    parameter_ndims: ClassVar[int] = 0

    def __init__(self, logits: Float[Array, "*batch_event_and_parameters"], event_ndims: int):
        """Builds the distribution.

        Args:
          logits: The logits.
          event_ndims: Number of axes of an event.
        """
        super().__init__()
        self._logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        self._event_ndims = event_ndims

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self._batch_and_event[len(self._batch_and_event) - self._event_ndims :]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of distributions."""
        return self._batch_and_event[: len(self._batch_and_event) - self._event_ndims]

    @property
    def dtype(self):
        """Type of the samples."""
        return self._logits.dtype

    @property
    def _batch_and_event(self) -> tuple[int, ...]:
        return self._logits.shape[: self._logits.ndim - self.parameter_ndims]


class ExponentialFamily(FactorizedLogits):
    """Base class: independent dimensions of density exp(l x - A(l)), each with a logit l.

    The mean of a dimension is A'(l), the entropy A(l) - l A'(l), and the KL divergence of a
    distribution with logits l from one with logits k is A(k) - A(l) + (l - k) A'(l).
    """

    @staticmethod
    @abc.abstractmethod
    def log_normalizer(logits: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Computes A(l)."""


def _kl_of_logits(p: ExponentialFamily, q: ExponentialFamily, **kwargs: Any) -> Array:
    """Computes KL(p || q) in nats for distributions of one family."""
    del kwargs
    check_same_event(p, q)
    change = p.log_normalizer(q._logits) - p.log_normalizer(p._logits)
    terms = change + (p._logits - q._logits) * p.mean()
    return sum_event(terms, len(p.event_shape))


class Bernoulli(ExponentialFamily):
    """Independent Bernoulli variables, 0 or 1: log P(x) = sum_i x_i l_i - softplus(l_i).

    l_i are logits, log P(1) - log P(0). For values between 0 and 1 it is the expectation over
    variables that are 1 with that probability.

    Shapes: events are the last `event_ndims` axes of the logits, ``[*batch, *event]``.
    """

    @staticmethod
    def log_normalizer(logits: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Computes log(1 + exp(l))."""
        return _softplus(logits)

    def log_prob(self, value: Float[Array, "*batch_and_event"]) -> Float[Array, "*batch"]:
        """Computes log P(x) in nats.

        Raises:
          ValueError: If the events have another shape.
        """
        check_event_shape("Bernoulli", value.shape, self.event_shape)
        terms = value * self._logits - _softplus(self._logits)
        return sum_event(terms, self._event_ndims)

    def log_cdf(self, value: Float[Array, "*batch_and_event"]) -> Float[Array, "*batch"]:
        """Computes the logarithm of the probability that no dimension exceeds its value."""
        check_event_shape("Bernoulli", value.shape, self.event_shape)
        below_one = jnp.where(value < 0, -jnp.inf, -_softplus(self._logits))
        terms = jnp.where(value >= 1, 0.0, below_one)
        return sum_event(jnp.where(jnp.isnan(value), jnp.nan, terms), self._event_ndims)

    def mean(self) -> Float[Array, "*batch_and_event"]:
        """Probability of a 1."""
        return jax.nn.sigmoid(self._logits)

    def variance(self) -> Float[Array, "*batch_and_event"]:
        """The variance of each dimension."""
        return self.mean() * jax.nn.sigmoid(-self._logits)

    def mode(self) -> Float[Array, "*batch_and_event"]:
        """The more probable value of each dimension; 0 where both are equally probable."""
        return (self._logits > 0).astype(self.dtype)

    def median(self) -> Float[Array, "*batch_and_event"]:
        """The least median of each dimension, which is its mode."""
        return self.mode()

    def entropy(self) -> Float[Array, "*batch"]:
        """Entropy in nats."""
        terms = _softplus(self._logits) - self._logits * self.mean()
        return sum_event(terms, self._event_ndims)

    def _sample_n(self, key: Array, n: int) -> Array:
        uniform = jax.random.uniform(key, (n, *self._logits.shape), self._logits.dtype)
        return (uniform < self.mean()).astype(self.dtype)


def _softplus(x: Array) -> Array:
    """Computes log(1 + exp(x)), whose gradient here reuses the exponential.

    On CPUs `jax.nn.softplus` and its gradient take one and a half times as long.
    """
    # One condition for both parts, so that the derivative at 0 is a half.
    positive = x >= 0
    return jnp.where(positive, x, 0) + jnp.log1p(jnp.exp(jnp.where(positive, -x, x)))


class ContinuousBernoulli(ExponentialFamily):
    """Independent continuous Bernoullis on [-1/2, 1/2]: p(x) = exp(l x) (l / 2) / sinh(l / 2).

    Shifted by -1/2 to the range of dequantized pixels, which makes it even in (l, x). Outside the
    interval the density is zero.

    Shapes: events are the last `event_ndims` axes of the logits, ``[*batch, *event]``.

    Source: Loaiza-Ganem & Cunningham 2019, "The continuous Bernoulli: fixing a pervasive error in
    variational autoencoders", equations 5 and 6.
    """

    @staticmethod
    def log_normalizer(logits: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Computes ``log(sinh(l / 2) / (l / 2))``: ``l^2 / 24`` near 0, ``|l| / 2`` far away."""
        small = jnp.abs(logits) < SMALL_LOGIT
        size = jnp.where(small, 1.0, jnp.abs(logits))
        square = jnp.where(small, logits, 0.0) ** 2
        # The integral of the mean.
        series = [coefficient / (2 * k) for k, coefficient in enumerate(MEAN_SERIES, 1)]
        return jnp.where(
            small,
            square * _horner(series, square),
            size / 2 + jnp.log(-jnp.expm1(-size)) - jnp.log(size),
        )

    def log_prob(self, value: Float[Array, "*batch_and_event"]) -> Float[Array, "*batch"]:
        """Computes the log-density in nats.

        Raises:
          ValueError: If the events have another shape.
        """
        check_event_shape("ContinuousBernoulli", value.shape, self.event_shape)
        terms = value * self._logits - self.log_normalizer(self._logits)
        outside = jnp.abs(value) > 0.5
        return sum_event(jnp.where(outside, -jnp.inf, terms), self._event_ndims)

    def log_cdf(self, value: Float[Array, "*batch_and_event"]) -> Float[Array, "*batch"]:
        """Computes the logarithm of the probability that no dimension exceeds its value."""
        check_event_shape("ContinuousBernoulli", value.shape, self.event_shape)
        share = jnp.clip(value + 0.5, 0, 1)
        size = jnp.abs(self._logits)
        uniform = size < jnp.finfo(self.dtype).tiny
        safe = jnp.where(uniform, 1.0, size)
        # With l > 0 the mass below x is (exp(l (u - 1)) - exp(-l)) / (1 - exp(-l)), u = x + 1/2.
        shift = jnp.where(self._logits > 0, safe * (share - 1), 0.0)
        above = jnp.where(share > 0, share, 1.0)  # whose logarithm has a finite gradient
        inside = shift + jnp.log(-jnp.expm1(-safe * above)) - jnp.log(-jnp.expm1(-safe))
        terms = jnp.where(uniform, jnp.log(above), inside)
        return sum_event(jnp.where(share <= 0, -jnp.inf, terms), self._event_ndims)

    def mean(self) -> Float[Array, "*batch_and_event"]:
        """The mean of each dimension: coth(l / 2) / 2 - 1 / l."""
        small, inside, safe = self._sides()
        series = inside * _horner(MEAN_SERIES, inside**2)
        return jnp.where(small, series, 0.5 / jnp.tanh(safe / 2) - 1 / safe)

    def variance(self) -> Float[Array, "*batch_and_event"]:
        """The variance of each dimension: 1 / l^2 - 1 / (4 sinh(l / 2)^2)."""
        small, inside, safe = self._sides()
        series = [coefficient * (2 * k - 1) for k, coefficient in enumerate(MEAN_SERIES, 1)]
        size = jnp.abs(safe)
        rest = jnp.exp(-size) / jnp.expm1(-size) ** 2
        return jnp.where(small, _horner(series, inside**2), 1 / size**2 - rest)

    def mode(self) -> Float[Array, "*batch_and_event"]:
        """The end of the interval where the density is largest; 0 where it is uniform."""
        return 0.5 * jnp.sign(self._logits)

    def median(self) -> Float[Array, "*batch_and_event"]:
        """The median of each dimension."""
        return self._quantile(jnp.full_like(self._logits, 0.5))

    def entropy(self) -> Float[Array, "*batch"]:
        """Differential entropy in nats."""
        small, inside, safe = self._sides()
        size = jnp.abs(safe)
        # log(2 sinh(l / 2) / l) - l mean, without their terms l / 2.
        large = (
            jnp.log(-jnp.expm1(-size))
            - jnp.log(size)
            + 1
            + size * jnp.exp(-size) / jnp.expm1(-size)
        )
        series = [coefficient * (1 / (2 * k) - 1) for k, coefficient in enumerate(MEAN_SERIES, 1)]
        terms = jnp.where(small, inside**2 * _horner(series, inside**2), large)
        return sum_event(terms, self._event_ndims)

    def _sides(self) -> tuple[Array, Array, Array]:
        """Whether a logit is small, the logits where they are, otherwise 0, and where not, or 1."""
        small = jnp.abs(self._logits) < SMALL_LOGIT
        return small, jnp.where(small, self._logits, 0.0), jnp.where(small, 1.0, self._logits)

    def _sample_n(self, key: Array, n: int) -> Array:
        shape = (n, *self._logits.shape)
        uniform = jax.random.uniform(key, shape, minval=jnp.finfo(self.dtype).tiny)
        return self._quantile(uniform)

    def _quantile(self, uniform: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Computes the values below which the mass is so much, above 0 and below 1."""
        small, _, safe = self._sides()
        # The inverse of the distribution function, (exp(l x) - exp(-l / 2)) / (2 sinh(l / 2)).
        sum_of_ends = jnp.logaddexp(jnp.log1p(-uniform) - safe / 2, jnp.log(uniform) + safe / 2)
        # The same from the lower end on, log(1 + u (exp(l) - 1)) / l, which is u at l = 0.
        zero = self._logits == 0
        inside = jnp.where(small & ~zero, self._logits, 1.0)
        from_end = jnp.where(zero, uniform, jnp.log1p(uniform * jnp.expm1(inside)) / inside)
        return jnp.clip(jnp.where(small, from_end - 0.5, sum_of_ends / safe), -0.5, 0.5)


for _family in (Bernoulli, ContinuousBernoulli):
    RegisterKL(_family, _family)(_kl_of_logits)


def _horner(coefficients: Sequence[float], x: Array) -> Array:
    """Computes the polynomial whose coefficients are given from the constant on."""
    value = jnp.zeros_like(x)
    for coefficient in reversed(coefficients):
        value = value * x + coefficient
    return value
