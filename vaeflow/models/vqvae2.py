"""Auto-encoders with several maps of codes."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.axis import LOCAL, Axis
from vaeflow.models.code_auto_encoder import CodeAutoEncoder
from vaeflow.nn import Conv, relu, resize_nearest
from vaeflow.quantizers import Quantized
from vaeflow.randomness import row_keys


class VQVAE2(CodeAutoEncoder):
    """A hierarchy of maps of codes: each is found given those above it, and all are decoded.

    Encoders make features h_1, ..., h_L of the image, each of those of the one before. The top map
    is h_L quantised. Below, an expander makes features of the map above, of the size of h_l; h_l
    and these, through a 1x1 convolution, are quantised. The decoder is given all maps, those above
    the lowest with their pixels repeated up to its size.

    Source: Razavi, van den Oord & Vinyals 2019, "Generating diverse high-fidelity images with
    VQ-VAE-2", section 3.1 and algorithm 1.

    Attributes:
      encoders: From the image, or the features below, to maps of features; from the lowest level to
        the top. `vaeflow.encoders.MapEncoder` halves them once for each of its `channels`.
      expanders: From each level above the lowest, the top first, to the size below:
        ``expander(latents, shape=(height, width, feature))``, such as a
        `vaeflow.decoders.MapDecoder`.
      quantizers: From the top to the lowest level, any of `vaeflow.quantizers`.
      decoder: p(x | c): a `vaeflow.decoders.Decoder` of maps, with ``latent_ndims=3``.
      observation: What becomes of uint8 images, as for `VAE`.
      channels: Channels of what is quantised below the top; the top's are those of its encoder.
    """

    encoders: Sequence[nn.Module]
    expanders: Sequence[nn.Module]
    quantizers: Sequence[nn.Module]
    decoder: nn.Module
    observation: nn.Module
    channels: int = 64

    @nn.compact
    def quantize(
        self,
        values: Float[Array, "batch height width channel"],
        rng: Array | None = None,
        *,
        axis: Axis = LOCAL,
        train: bool = False,
        **options: Array | float,
    ) -> tuple[Quantized, ...]:
        """Quantises observed values; see `CodeAutoEncoder.quantize`.

        Raises:
          ValueError: If the numbers of encoders, expanders and quantizers don't match.
        """
        counts = len(self.encoders), len(self.expanders) + 1, len(self.quantizers)
        if len(set(counts)) > 1:
            raise ValueError(
                "VQVAE2: there must be as many encoders as quantizers, and one expander less, got "
                f"{counts[0]}, {counts[2]} and {counts[1] - 1}"
            )
        features = []
        for encoder in self.encoders:
            features.append(encoder(relu(features[-1]) if features else values))
        keys = [None] * len(features)
        if rng is not None:
            rows = row_keys(rng, values.shape[0])
            keys = jax.vmap(lambda key: jax.random.split(key, len(features)))(rows).swapaxes(0, 1)
        levels = []
        for level, (quantizer, found) in enumerate(
            zip(self.quantizers, reversed(features), strict=True)
        ):
            if levels:
                above = self.expanders[level - 1](levels[-1].values, shape=found.shape[1:])
                both = jnp.concatenate([found, above], axis=-1)
                found = Conv(self.channels, (1, 1), name=f"joined_{level}")(both)
            levels.append(quantizer(found, keys[level], axis=axis, train=train, **options))
        return tuple(levels)

    def merge(
        self, values: Sequence[Float[Array, "*batch map_height map_width latent"]]
    ) -> Float[Array, "*batch map_height map_width latents"]:
        """Repeats the pixels of all maps up to the size of the lowest, side by side."""
        size = values[-1].shape[-3:-1]
        return jnp.concatenate([resize_nearest(each, size) for each in values], axis=-1)
