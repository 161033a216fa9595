"""What auto-encoders whose latents are codes share."""

from __future__ import annotations

from collections.abc import Sequence

import distrax
import flax.linen as nn
from jaxtyping import Array, Float, Int, UInt8

from vaeflow.axis import LOCAL, Axis
from vaeflow.models.dequantizer import Dequantized
from vaeflow.quantizers import Quantized
from vaeflow.randomness import row_keys

Codes = tuple[Int[Array, "batch map_height map_width *codebooks"], ...]


class CodeAutoEncoder(nn.Module):
    """Images to maps of codes c(x), which a decoder explains the images by, p(x | c).

    There are one or several maps, listed from the smallest, the top, to the one beside the image.
    With any distribution P of codes, -log p(x | c(x)) - log P(c(x)) bounds -log p(x) from above,
    as p(x) is a sum over all codes; see `vaeflow.losses.vq_vae` and `CodePrior`.

    A subclass has the fields `decoder` and `observation`, as `VQVAE` describes them, and
    `quantizers`, and answers `quantize` and `merge`.
    """

    def __call__(
        self, images: UInt8[Array, "batch height width channel"]
    ) -> Float[Array, "batch map_height map_width latent"]:
        """Computes the decoder's input; `init` calls it with the first batch.

        Everything data-dependent is initialised from that batch, the codes among it. Keys come from
        the rng "params" in `init` and from "sample" otherwise.
        """
        rng = self.make_rng("params" if self.is_initializing() else "sample")
        values = self.observe(images, rng).values
        latents = self.merge([level.values for level in self.quantize(values)])
        self.decoder(latents, data=values)
        return latents

    def observe(
        self, images: UInt8[Array, "batch height width channel"], rng: Array
    ) -> Dequantized:
        """Turns images into values; arguments as for `VAE.observe`."""
        return self.observation(images, row_keys(rng, images.shape[0]))

    def quantize(
        self,
        values: Float[Array, "batch height width channel"],
        rng: Array | None = None,
        *,
        axis: Axis = LOCAL,
        train: bool = False,
        **options: Array | float,
    ) -> tuple[Quantized, ...]:
        """Quantises observed values, level by level from the top.

        Args:
          values: Observed values.
          rng: A typed key, or one for each row; needed by what is random in training.
          axis: As for `vaeflow.quantizers.Quantizer`.
          train: As for `vaeflow.quantizers.Quantizer`.
          **options: Further arguments of the quantizers, such as a `temperature`.
        """
        raise NotImplementedError

    def merge(
        self, values: Sequence[Float[Array, "*batch map_height map_width latent"]]
    ) -> Float[Array, "*batch map_height map_width latents"]:
        """Makes the decoder's input of the values of all levels, from the top."""
        raise NotImplementedError

    def likelihood(
        self, latents: Float[Array, "*batch map_height map_width latents"]
    ) -> distrax.Distribution:
        """Builds p(x | c), one distribution of observed values for each input of the decoder."""
        return self.decoder(latents)

    def encode(self, images: UInt8[Array, "batch height width channel"], rng: Array) -> Codes:
        """Finds the codes of images, from the top."""
        values = self.observe(images, rng).values
        return tuple(level.indices for level in self.quantize(values))

    def lookup(
        self, codes: Sequence[Int[Array, "*batch map_height map_width *codebooks"]]
    ) -> Float[Array, "*batch map_height map_width latents"]:
        """Makes the decoder's input of codes, from the top; NaN where one is out of range.

        Raises:
          ValueError: If there isn't a map for each level.
        """
        if len(codes) != len(self.quantizers):
            raise ValueError(
                f"codes must be {len(self.quantizers)} maps from the top, got {len(codes)}"
            )
        pairs = zip(self.quantizers, codes, strict=True)
        return self.merge([quantizer.lookup(indices) for quantizer, indices in pairs])

    def decode(
        self, codes: Sequence[Int[Array, "*batch map_height map_width *codebooks"]]
    ) -> UInt8[Array, "*batch height width channel"]:
        """Shows the means of p(x | c) as images; a code out of range makes its image zeros."""
        return self.show(self.lookup(codes))

    def show(
        self, latents: Float[Array, "*batch map_height map_width latents"]
    ) -> UInt8[Array, "*batch height width channel"]:
        """Shows the means of p(x | c) as images, for inputs of the decoder."""
        return self.observation.quantize(self.likelihood(latents).mean())
