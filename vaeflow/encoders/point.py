"""Posteriors without uncertainty."""

from __future__ import annotations

import distrax
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.distributions import standard_normal


class PointMassPosterior(nn.Module):
    """A single value, q(z | x) = delta(z - m(h)), with m linear in the features h.

    It has no density, so no bound on a likelihood takes it (`vaeflow.models.VAE.infer` refuses it);
    `vaeflow.losses.munit` does.

    Attributes:
      latents: Number of latents.
    """

    latents: int

    @nn.compact
    def __call__(self, features: Float[Array, "batch feature"]) -> distrax.Independent:
        """Builds the distributions, events ``[latent]``, in float32 or wider."""
        value = nn.Dense(self.latents)(features)
        exactly = jnp.zeros_like(value)  # with the axes of the value, so that rows can be mapped
        return distrax.Independent(distrax.Deterministic(value, exactly, exactly), 1)

    def standard(self, temperature: float = 1.0) -> distrax.Distribution:
        """The prior that goes with it: a standard normal, its deviation times a temperature."""
        return standard_normal((self.latents,), (), temperature)
