"""Continuous Bernoulli likelihoods."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.distributions import ContinuousBernoulli


class ContinuousBernoulliLikelihood(nn.Module):
    """Entries of [-1/2, 1/2], with one logit each; for images that are dequantized."""

    parameters = 1

    def __call__(
        self, numbers: Float[Array, "*batch height width channel parameter"]
    ) -> ContinuousBernoulli:
        """Builds the distributions of images."""
        return ContinuousBernoulli(numbers[..., 0], 3)

    def initial(
        self, data: Float[Array, "rows height width channel"]
    ) -> Float[Array, "height width channel parameter"]:
        """Logits whose means are near those of the data: 12 m / (1 - 4 m^2) for means m."""
        mean = jnp.clip(jnp.mean(data, axis=0), -0.48, 0.48)
        return (mean * 12 / (1 - 4 * mean**2))[..., None]
