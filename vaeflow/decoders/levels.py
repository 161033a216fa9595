"""Likelihoods of grey levels, for images that are neither binarised nor dequantized."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.distributions import DiscretizedLogisticMixture, PixelCategorical

SMALLEST_SCALE = 1e-4
"""Least scale of a logistic distribution, under a tenth of a cell of 8 bits."""
DEVIATION = math.pi / math.sqrt(3)
"""Deviation of a logistic distribution over its scale."""


class DiscretizedLogisticMixtureLikelihood(nn.Module):
    """Logistic distributions integrated over the cells of the levels, mixed for each entry.

    One component has a mean and a scale for each entry; K components have K of both and K logits.

    Attributes:
      components: Number K of components.
      bits: Bits of a level, those of the observation.
    """

    components: int = 1
    bits: int = 8

    @property
    def parameters(self) -> int:
        """Numbers that the network gives for each entry."""
        return 2 if self.components == 1 else 3 * self.components

    def __call__(
        self, numbers: Float[Array, "*batch height width channel parameter"]
    ) -> DiscretizedLogisticMixture:
        """Builds the distributions of images."""
        mean, raw, *logits = jnp.split(numbers, self.parameters // self.components, axis=-1)
        logits = logits[0] if logits else jnp.zeros_like(mean)
        scale = SMALLEST_SCALE + jax.nn.softplus(raw)
        return DiscretizedLogisticMixture(logits, mean, scale, 3, self.bits)

    def initial(
        self, data: Float[Array, "rows height width channel"]
    ) -> Float[Array, "height width channel parameter"]:
        """Means spread over two deviations of the data, scales that share them, equal weights."""
        mean, deviation = jnp.mean(data, axis=0), jnp.maximum(jnp.std(data, axis=0), 0.01)
        steps = jnp.linspace(-1, 1, self.components) if self.components > 1 else jnp.zeros(1)
        scale = deviation / (DEVIATION * self.components)
        parts = [
            mean[..., None] + steps * deviation[..., None],
            jnp.broadcast_to(jnp.log(jnp.expm1(scale))[..., None], (*mean.shape, self.components)),
            jnp.zeros((*mean.shape, self.components)),
        ]
        return jnp.concatenate(parts[: self.parameters // self.components], axis=-1)


class CategoricalLikelihood(nn.Module):
    """One logit for each level of each entry.

    Attributes:
      bits: Bits of a level, those of the observation; there are 2^bits logits.
    """

    bits: int = 8

    @property
    def parameters(self) -> int:
        """Numbers that the network gives for each entry."""
        return 2**self.bits

    def __call__(
        self, numbers: Float[Array, "*batch height width channel parameter"]
    ) -> PixelCategorical:
        """Builds the distributions of images."""
        return PixelCategorical(numbers, 3)

    def initial(
        self, data: Float[Array, "rows height width channel"]
    ) -> Float[Array, "height width channel parameter"]:
        """Logarithms of how often all entries of the data have each level, one added to each."""
        levels = jnp.clip(jnp.floor((data + 0.5) * self.parameters), 0, self.parameters - 1)
        counts = jnp.bincount(levels.ravel().astype(jnp.int32), length=self.parameters)
        logits = jnp.log(counts + 1.0) - jnp.log(levels.size + self.parameters)
        return jnp.broadcast_to(logits, (*data.shape[1:], self.parameters))
