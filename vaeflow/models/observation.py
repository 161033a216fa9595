"""What a latent-variable model is told of an image, where no noise turns it into reals."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from vaeflow.models.dequantizer import Dequantized, quantize_levels, quantize_values


class Binarizer(nn.Module):
    """Draws each entry as 1 with probability image / 255, else 0, anew at every call.

    Grey levels are probabilities then, and likelihoods are of the drawn images: "dynamic
    binarisation", for a Bernoulli likelihood.

    Source: Salakhutdinov & Murray 2008, "On the quantitative analysis of deep belief networks";
    Burda, Grosse & Salakhutdinov 2016, section 5.
    """

    bits = 1

    def __call__(
        self, images: UInt8[Array, "batch height width channel"], keys: Array
    ) -> Dequantized:
        """Draws binary images; `log_det` is zero.

        Args:
          images: Images of dtype uint8.
          keys: A typed key for each row, ``[batch]``.

        Raises:
          ValueError: If the images aren't uint8.
        """
        probability = quantize_levels(images, 8) / 255
        uniform = jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:]))(keys)
        values = (uniform < probability).astype(jnp.float32)
        return Dequantized(values, jnp.zeros(images.shape[:1]))

    def quantize(
        self, values: Float[Array, "*batch height width channel"]
    ) -> UInt8[Array, "*batch height width channel"]:
        """Returns 255 times the values, which may be probabilities, rounded."""
        return jnp.round(255 * jnp.clip(values, 0, 1)).astype(jnp.uint8)


class Discretizer(nn.Module):
    """Places the levels of an image in the middles of 2^bits cells of [-1/2, 1/2).

    values = (k + 1/2) / 2^bits - 1/2 with k = floor(image / 2^(8 - bits)), without noise: for
    likelihoods that give each level a probability.

    Attributes:
      bits: Bits kept of each of the 8 bits of an entry, 1 to 8.
    """

    bits: int = 8

    def __call__(
        self, images: UInt8[Array, "batch height width channel"], keys: Array | None = None
    ) -> Dequantized:
        """Scales images; `log_det` is zero.

        Args:
          images: Images of dtype uint8.
          keys: Ignored.

        Raises:
          ValueError: If the images aren't uint8, or bits isn't in 1, ..., 8.
        """
        del keys
        values = (quantize_levels(images, self.bits) + 0.5) / 2**self.bits - 0.5
        return Dequantized(values, jnp.zeros(images.shape[:1]))

    def quantize(
        self, values: Float[Array, "*batch height width channel"]
    ) -> UInt8[Array, "*batch height width channel"]:
        """Returns the images whose cells hold the values, clipped to the range."""
        return quantize_values(values, self.bits)
