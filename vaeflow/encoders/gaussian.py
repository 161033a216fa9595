"""Gaussian posteriors."""

from __future__ import annotations

import math

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.distributions import FullGaussian, standard_normal

SMALLEST_SCALE = 1e-6
"""Least deviation of a latent: far below, log-densities lose their digits."""


def positive(raw: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Makes a deviation of any number: softplus, which is one at zero and linear in large numbers.

    An exponential would overflow at 89, and its gradients explode long before.
    """
    return jax.nn.softplus(raw + math.log(math.e - 1)) + SMALLEST_SCALE


class DiagonalGaussianPosterior(nn.Module):
    """Independent normals: q(z | x) = N(mean(h), diag(scale(h))^2), both linear in the features h.

    The scale passes a softplus; it is one where the linear part is zero.

    Source: Kingma & Welling 2014, "Auto-encoding variational Bayes", appendix C.2.

    Attributes:
      latents: Number of latents.
    """

    latents: int

    @nn.compact
    def __call__(self, features: Float[Array, "batch feature"]) -> distrax.Independent:
        """Builds the distributions, events ``[latent]``, in float32 or wider."""
        mean = nn.Dense(self.latents, name="mean")(features)
        scale = positive(nn.Dense(self.latents, name="scale")(features))
        return distrax.Independent(distrax.Normal(mean, scale), 1)

    def standard(self, temperature: float = 1.0) -> distrax.Distribution:
        """The prior that goes with it: a standard normal, its deviation times a temperature."""
        return standard_normal((self.latents,), (), temperature)


class FullGaussianPosterior(nn.Module):
    """Correlated normals: q(z | x) = N(mean(h), L(h) L(h)^T) with features h.

    L is lower triangular: entries below the diagonal are linear in the features, those on it pass a
    softplus. The features make latents (latents + 3) / 2 numbers.

    Source: Kingma & Welling 2019, "An introduction to variational autoencoders", section 2.5.1.

    Attributes:
      latents: Number of latents.
    """

    latents: int

    @nn.compact
    def __call__(self, features: Float[Array, "batch feature"]) -> FullGaussian:
        """Builds the distributions, events ``[latent]``, in float32 or wider."""
        mean = nn.Dense(self.latents, name="mean")(features)
        scale = positive(nn.Dense(self.latents, name="scale")(features))
        rows, columns = jnp.tril_indices(self.latents, -1)
        below = nn.Dense(len(rows), name="below", kernel_init=nn.initializers.zeros)(features)
        factor = scale[..., None] * jnp.eye(self.latents, dtype=scale.dtype)
        factor = factor.at[..., rows, columns].set(below)
        return FullGaussian(mean, factor)

    def standard(self, temperature: float = 1.0) -> distrax.Distribution:
        """The prior that goes with it: a standard normal, its deviation times a temperature."""
        return standard_normal((self.latents,), (), temperature)
