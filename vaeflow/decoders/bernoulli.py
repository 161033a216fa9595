"""Bernoulli likelihoods."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.distributions import Bernoulli

LEAST_PROBABILITY = 1e-3
"""Of an entry that was never seen to be 1, or 0, in the first batch."""


class BernoulliLikelihood(nn.Module):
    """Entries that are 0 or 1, with one logit each; for images that are binarised."""

    parameters = 1

    def __call__(self, numbers: Float[Array, "*batch height width channel parameter"]) -> Bernoulli:
        """Builds the distributions of images."""
        return Bernoulli(numbers[..., 0], 3)

    def initial(
        self, data: Float[Array, "rows height width channel"]
    ) -> Float[Array, "height width channel parameter"]:
        """Logits of the share of ones in the data."""
        share = jnp.clip(jnp.mean(data, axis=0), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
        return (jnp.log(share) - jnp.log1p(-share))[..., None]
