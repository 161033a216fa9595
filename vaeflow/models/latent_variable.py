"""What models of images by latents share."""

from __future__ import annotations

import distrax
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from vaeflow.flows.context import prepare_context
from vaeflow.models.dequantizer import Dequantized
from vaeflow.randomness import row_keys


class LatentVariableModel(nn.Module):
    """Latents z ~ p(z), images x ~ p(x | z).

    A subclass has the fields `decoder`, `observation` and `classes`, as `VAE` describes them, and
    answers `prior`, `infer` and `encode`.
    """

    def observe(
        self, images: UInt8[Array, "batch height width channel"], rng: Array
    ) -> Dequantized:
        """Turns images into what the distributions speak of.

        Args:
          images: Images of dtype uint8.
          rng: A typed key, or one for each row.
        """
        return self.observation(images, row_keys(rng, images.shape[0]))

    def likelihood(
        self, z: Float[Array, "*batch latent"], context: Array | None = None
    ) -> distrax.Distribution:
        """Builds p(x | z), one distribution of observed values for each z."""
        return self.decoder(z, prepare_context(context, self.classes))

    def sample(
        self, rng: Array, count: int, context: Array | None = None, *, temperature: float = 1.0
    ) -> UInt8[Array, "count *batch height width channel"]:
        """Draws z from the prior and shows the means of p(x | z) as images.

        Args:
          rng: A typed key.
          count: Number of images, for each label if there are some.
          context: Labels ``[*batch]``, or None.
          temperature: As for `prior`.
        """
        prior = self.prior(context, temperature=temperature)
        # A prior of all classes draws once for each label.
        labels = jnp.shape(context)[len(prior.batch_shape) :] if context is not None else ()
        z = prior.sample(seed=rng, sample_shape=(count, *labels))
        return self.decode(z, context)

    def decode(
        self, z: Float[Array, "*batch latent"], context: Array | None = None
    ) -> UInt8[Array, "*batch height width channel"]:
        """Shows the means of p(x | z) as images."""
        return self.observation.quantize(self.likelihood(z, context).mean())
