"""Gaussians of vectors with a full covariance."""

from __future__ import annotations

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class FullGaussian(distrax.Distribution):
    """A Gaussian of vectors with covariance L L^T.

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
          factor: The Cholesky factor L of the covariance; what stands above its diagonal isn't
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
        deviation = value - self._mean
        if value.shape[-1:] != self.event_shape:
            raise ValueError(
                f"value must hold events of shape {self.event_shape}, got shape {value.shape}"
            )
        factor = jnp.broadcast_to(self._factor, (*deviation.shape, self.event_shape[0]))
        noise = jax.lax.linalg.triangular_solve(
            factor, deviation[..., None], left_side=True, lower=True
        )[..., 0]
        return _log_prob_of_noise(noise) - self._log_det()

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

    def covariance(self) -> Float[Array, "*batch dimension dimension"]:
        """The covariance L L^T."""
        return self._factor @ jnp.swapaxes(self._factor, -1, -2)

    def variance(self) -> Float[Array, "*batch dimension"]:
        """The variance of each entry."""
        return jnp.sum(self._factor**2, axis=-1)


def _log_prob_of_noise(noise: Array) -> Array:
    return jnp.sum(-0.5 * noise**2 - 0.5 * jnp.log(2 * jnp.pi), axis=-1)
