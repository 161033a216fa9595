"""Deterministic auto-encoders."""

from __future__ import annotations

import distrax
import flax.linen as nn
from jaxtyping import Array, Float, UInt8

from vaeflow.models.dequantizer import Dequantized
from vaeflow.randomness import row_keys


class AutoEncoder(nn.Module):
    """Latents z = f(x) that a decoder explains the image by: no distribution is put on them.

    What lies between the latents of the data means nothing to it, so it has no samples; see
    `vaeflow.losses.reconstruction` for its loss.

    Source: Hinton & Salakhutdinov 2006, "Reducing the dimensionality of data with neural networks".

    Attributes:
      network: From images to features, such as `vaeflow.encoders.DenseEncoder`.
      latents: Number of latents, linear in the features.
      decoder: p(x | z): a `vaeflow.decoders.Decoder`.
      observation: What becomes of uint8 images, as for `VAE`.
    """

    network: nn.Module
    latents: int
    decoder: nn.Module
    observation: nn.Module

    @nn.compact
    def __call__(
        self, values: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch latent"]:
        """Computes the latents of observed values, which `init` takes the first batch of."""
        latents = nn.Dense(self.latents, name="latent")(self.network(values))
        if self.is_initializing():
            self.decoder(latents, data=values)
        return latents

    def observe(
        self, images: UInt8[Array, "batch height width channel"], rng: Array
    ) -> Dequantized:
        """Turns images into values; arguments as for `VAE.observe`."""
        return self.observation(images, row_keys(rng, images.shape[0]))

    def likelihood(self, z: Float[Array, "*batch latent"]) -> distrax.Distribution:
        """Builds p(x | z), one distribution of observed values for each z."""
        return self.decoder(z)

    def encode(
        self, images: UInt8[Array, "batch height width channel"], rng: Array
    ) -> Float[Array, "batch latent"]:
        """Computes the latents of images."""
        return self(self.observe(images, rng).values)

    def decode(
        self, z: Float[Array, "*batch latent"]
    ) -> UInt8[Array, "*batch height width channel"]:
        """Shows the means of p(x | z) as images."""
        return self.observation.quantize(self.likelihood(z).mean())
