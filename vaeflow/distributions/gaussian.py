"""Gaussian distributions: full covariance, the standard normal, products, pairwise densities."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from tensorflow_probability.substrates.jax.distributions import RegisterKL

from vaeflow._util.arrays import check_event_shape, check_same_event
from vaeflow._util.checks import check_number
from vaeflow._util.derivatives import quotient


class FullGaussian(distrax.Distribution):
    """Multivariate normal with covariance L L^T.

    log p(x) = -||L^-1 (x - mean)||^2 / 2 - sum_i log L_ii - (dimension / 2) log 2 pi, in nats and
    float32 or wider, for a lower triangular L with a positive diagonal. Samples mean + L e, with e
    standard normal, are reparameterised.

    Shapes: events are ``[dimension]``; `mean` is ``[*batch, dimension]``, `factor`
    ``[*batch, dimension, dimension]``, with equal batch axes.
    """

    def __init__(
        self,
        mean: Float[Array, "*batch dimension"],
        factor: Float[Array, "*batch dimension dimension"],
    ):
        """Builds the distribution.

        Args:
          mean: The mean.
          factor: The Cholesky factor L of the covariance; entries above its diagonal aren't
            read.

        Raises:
          ValueError: If the shapes don't fit each other.
        """
        super().__init__()
        mean, factor = jnp.asarray(mean), jnp.asarray(factor)
        if mean.ndim < 1 or factor.shape != (*mean.shape, mean.shape[-1]):
            raise ValueError(
                "mean and factor must have shapes [*batch, dimension] and "
                f"[*batch, dimension, dimension], got {mean.shape} and {factor.shape}"
            )
        self._mean = mean.astype(jnp.promote_types(mean.dtype, jnp.float32))
        self._factor = jnp.tril(factor.astype(self._mean.dtype))

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self._mean.shape[-1:]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of distributions."""
        return self._mean.shape[:-1]

    @property
    def dtype(self):
        """Type of the samples."""
        return self._mean.dtype

    def log_prob(self, value: Float[Array, "*batch dimension"]) -> Float[Array, "*batch"]:
        """Computes the log-density in nats.

        Raises:
          ValueError: If the events have another shape.
        """
        check_event_shape("FullGaussian", value.shape, self.event_shape)
        noise = self._whitened((value - self._mean)[..., None])[..., 0]
        return _log_prob_of_noise(noise) - self._log_det()

    def _whitened(self, columns: Float[Array, "*batch dimension column"]) -> Array:
        """Computes L^-1 times a matrix, whose batch axes broadcast against those of L."""
        batch = jnp.broadcast_shapes(columns.shape[:-2], self.batch_shape)
        factor = jnp.broadcast_to(self._factor, (*batch, *self._factor.shape[-2:]))
        columns = jnp.broadcast_to(columns, (*batch, *columns.shape[-2:]))
        return jax.lax.linalg.triangular_solve(factor, columns, left_side=True, lower=True)

    def _log_det(self) -> Array:
        return jnp.sum(jnp.log(jnp.diagonal(self._factor, axis1=-2, axis2=-1)), axis=-1)

    def _sample_n(self, key: Array, n: int) -> Array:
        return self._sample_n_and_log_prob(key, n)[0]

    def _sample_n_and_log_prob(self, key: Array, n: int) -> tuple[Array, Array]:
        noise = jax.random.normal(key, (n, *self._mean.shape), self.dtype)
        samples = self._mean + jnp.einsum("...ij,...j->...i", self._factor, noise)
        return samples, _log_prob_of_noise(noise) - self._log_det()

    def mean(self) -> Float[Array, "*batch dimension"]:
        """The mean."""
        return self._mean

    def mode(self) -> Float[Array, "*batch dimension"]:
        """The mode, which is the mean."""
        return self._mean

    def median(self) -> Float[Array, "*batch dimension"]:
        """The median of each dimension, which is its mean."""
        return self._mean

    def entropy(self) -> Float[Array, "*batch"]:
        """Differential entropy in nats."""
        return 0.5 * self.event_shape[0] * (1 + math.log(2 * math.pi)) + self._log_det()

    def covariance(self) -> Float[Array, "*batch dimension dimension"]:
        """The covariance L L^T."""
        return self._factor @ jnp.swapaxes(self._factor, -1, -2)

    def variance(self) -> Float[Array, "*batch dimension"]:
        """The variance of each dimension."""
        return jnp.sum(self._factor**2, axis=-1)


@RegisterKL(FullGaussian, FullGaussian)
@RegisterKL(FullGaussian, distrax.Independent)
@RegisterKL(distrax.Independent, FullGaussian)
def _kl_of_gaussians(
    p: FullGaussian | distrax.Independent, q: FullGaussian | distrax.Independent, **kwargs: Any
) -> Float[Array, "*batch"]:
    """Computes KL(p || q) in nats, where one may be made of independent normals.

    With factors L of p and M of q it is log det M - log det L +
    (||M^-1 L||^2 + ||M^-1 (mean_q - mean_p)||^2 - dimension) / 2.
    """
    del kwargs
    check_same_event(p, q)
    p, q = _as_full(p), _as_full(q)
    squares = jnp.sum(q._whitened(p._factor) ** 2, axis=(-2, -1))
    distance = jnp.sum(q._whitened((p._mean - q._mean)[..., None]) ** 2, axis=(-2, -1))
    return 0.5 * (squares + distance - p.event_shape[0]) + q._log_det() - p._log_det()


def _as_full(part: FullGaussian | distrax.Independent) -> FullGaussian:
    if isinstance(part, FullGaussian):
        return part
    normal = normals_of(part)
    if normal is None:
        raise NotImplementedError(
            f"The KL divergence between a FullGaussian and {part.distribution.name}s has no "
            "closed form."
        )
    loc, scale = jnp.broadcast_arrays(normal.loc, normal.scale)
    return FullGaussian(loc, scale[..., None] * jnp.eye(loc.shape[-1], dtype=scale.dtype))


class Normal(distrax.Normal):
    """A normal distribution with exact gradients at deviations of every size."""

    def _standardize(self, value: Array) -> Array:
        return quotient(value - self._loc, self._scale)


def normals_of(part: distrax.Distribution | None) -> distrax.Normal | None:
    """Returns the normals of a diagonal Gaussian, or None for other distributions."""
    normal = getattr(part, "distribution", None)
    independent = isinstance(part, distrax.Independent) and isinstance(normal, distrax.Normal)
    return normal if independent else None


def _log_prob_of_noise(noise: Array) -> Array:
    return jnp.sum(-0.5 * noise**2 - 0.5 * jnp.log(2 * jnp.pi), axis=-1)


def standard_normal(
    event_shape: Sequence[int], batch_shape: Sequence[int] = (), temperature: float = 1.0
) -> distrax.Distribution:
    """Builds independent normals with mean zero and a common standard deviation.

    Args:
      event_shape: Shape of a sample.
      batch_shape: Shape of the batch of distributions.
      temperature: Standard deviation; 1 is the density of the model, less gives samples that are
        more typical and less diverse (Kingma & Dhariwal 2018, section 5).

    Returns:
      A distrax distribution of events of shape `event_shape`, in float32, or wider where the
      temperature is an array of a wider type.

    Raises:
      ValueError: If the temperature is below zero or not finite; NaN where it is traced.
    """
    temperature = check_number("temperature", temperature, 0)
    dtype = jnp.result_type(jnp.float32, temperature)
    zeros = jnp.zeros((*batch_shape, *event_shape), dtype)
    scale = jnp.broadcast_to(jnp.asarray(temperature, dtype), zeros.shape)
    return distrax.Independent(Normal(zeros, scale), len(event_shape))


def product_of_normals(
    first: distrax.Independent, second: distrax.Independent
) -> distrax.Independent:
    """Computes the normalised product of two diagonal Gaussians (a product of experts).

    Precisions add up, means are weighted by them: s^-2 = s_1^-2 + s_2^-2 and
    m = (m_1 s_1^-2 + m_2 s_2^-2) s^2. With a prior as the first and a likelihood as the second it
    is Bayes' rule; as s_2 grows, the product approaches the first.

    Args:
      first: Normals of events ``[dimension]``.
      second: Normals of as many dimensions, whose batch axes broadcast to those of the first.

    Raises:
      ValueError: If one isn't made of independent normals, or their events differ in shape.
    """
    one, two = normals_of(first), normals_of(second)
    if one is None or two is None:
        raise ValueError(
            f"vectors of independent normals are needed, got {first.name} and {second.name}"
        )
    if first.event_shape != second.event_shape:
        raise ValueError(
            f"both must have one event shape, got {first.event_shape} and {second.event_shape}"
        )
    # The second's weight as a sigmoid: squares of large deviations can't overflow.
    log_ratio = jnp.log(one.scale) - jnp.log(two.scale)
    weight = jax.nn.sigmoid(2 * log_ratio)
    mean = one.loc + weight * (two.loc - one.loc)
    scale = jnp.exp(jnp.log(one.scale) - 0.5 * jax.nn.softplus(2 * log_ratio))
    return distrax.Independent(Normal(mean, scale), 1)


def pairwise_log_prob(
    normal: distrax.Normal,
    values: Float[Array, "row dimension"],
    per_dim: Callable[[Float[Array, "component row"]], Any] = lambda log_density: None,
) -> tuple[Float[Array, "component row"], Any]:
    """Computes log N(x_r; mean_k, scale_k) for each component k and row r, in nats.

    One dimension at a time, forward and backward, so that memory doesn't grow with their number.
    Components are the leading axis, along which CPUs reduce fastest.

    Args:
      normal: ``[component, dimension]`` normals.
      values: The rows.
      per_dim: Function of the log-densities of each dimension, whose results are stacked.

    Returns:
      The log-densities, summed over dimensions, and the stacked results of `per_dim`.
    """

    @jax.checkpoint
    def add(total: Array, columns: tuple[Array, Array, Array]) -> tuple[Array, Any]:
        loc, scale, value = columns
        log_density = Normal(loc[:, None], scale[:, None]).log_prob(value)
        return total + log_density, per_dim(log_density)

    dtype = jnp.result_type(normal.loc, normal.scale, values)
    nothing = jnp.zeros((normal.loc.shape[0], values.shape[0]), dtype)
    return jax.lax.scan(add, nothing, (normal.loc.T, normal.scale.T, values.T))
