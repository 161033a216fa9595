"""Variational auto-encoders with a discriminator of their latents."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Float, UInt8

from vaeflow.models.vae import VAE


class FactorVAE(nn.Module):
    """A variational auto-encoder, and the discriminator that measures its total correlation.

    The parameters of the two, of players called as the attributes, are trained by
    `vaeflow.losses.factor_vae` and `vaeflow.losses.factor_vae_discriminator`, and taken apart by
    `vaeflow.models.submodel`: once trained, "model" is a VAE as any other.

    Source: Kim & Mnih 2018, "Disentangling by factorising".

    Attributes:
      model: The auto-encoder.
      discriminator: From latents to the logit that they come from the aggregate posterior and not
        from the product of its marginals, such as `vaeflow.nn.LatentDiscriminator`.
    """

    model: VAE
    discriminator: nn.Module

    def __call__(
        self, images: UInt8[Array, "batch height width channel"], context: Array | None = None
    ) -> Float[Array, " batch"]:
        """Computes the logits once; `init` calls it with the first batch, as it does a `VAE`.

        Args:
          images: A batch of images.
          context: Labels ``[batch]``, or None.
        """
        return self.discriminator(self.model(images, context).z[0])
