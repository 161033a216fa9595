"""Auto-encoders with one map of codes."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Float

from vaeflow.axis import LOCAL, Axis
from vaeflow.models.code_auto_encoder import CodeAutoEncoder
from vaeflow.quantizers import Quantized


class VQVAE(CodeAutoEncoder):
    """One map of codes: features of the image, each replaced by a code of the quantizer.

    Source: van den Oord, Vinyals & Kavukcuoglu 2017, "Neural discrete representation learning".

    Attributes:
      encoder: From images to maps of features, such as `vaeflow.encoders.MapEncoder`.
      quantizer: One of `vaeflow.quantizers`.
      decoder: p(x | c): a `vaeflow.decoders.Decoder` of maps, with ``latent_ndims=3``.
      observation: What becomes of uint8 images, as for `VAE`.
    """

    encoder: nn.Module
    quantizer: nn.Module
    decoder: nn.Module
    observation: nn.Module

    @property
    def quantizers(self) -> tuple[nn.Module, ...]:
        """The quantizer of each level: one."""
        return (self.quantizer,)

    def quantize(
        self,
        values: Float[Array, "batch height width channel"],
        rng: Array | None = None,
        *,
        axis: Axis = LOCAL,
        train: bool = False,
        **options: Array | float,
    ) -> tuple[Quantized, ...]:
        """Quantises observed values; see `CodeAutoEncoder.quantize`."""
        return (self.quantizer(self.encoder(values), rng, axis=axis, train=train, **options),)

    def merge(
        self, values: Sequence[Float[Array, "*batch map_height map_width latent"]]
    ) -> Float[Array, "*batch map_height map_width latent"]:
        """The values of the one level."""
        (latents,) = values
        return latents
