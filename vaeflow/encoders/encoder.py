"""From images to distributions of latents."""

from __future__ import annotations

import distrax
import flax.linen as nn
from jaxtyping import Array, Float


class Encoder(nn.Module):
    """Computes q(z | x): a network makes features of x, and a posterior a distribution of them.

    Attributes:
      network: ``network(values, context)`` from ``[batch, height, width, channel]`` to features
        ``[batch, feature]``, such as `DenseEncoder`.
      posterior: ``posterior(features)`` to a distribution with the batch axis of the features, such
        as `DiagonalGaussianPosterior`.
    """

    network: nn.Module
    posterior: nn.Module

    def __call__(
        self,
        values: Float[Array, "batch height width channel"],
        context: Float[Array, "batch condition"] | None = None,
    ) -> distrax.Distribution:
        """Builds the distributions of the latents, ``[batch]`` of them."""
        return self.posterior(self.network(values, context))
