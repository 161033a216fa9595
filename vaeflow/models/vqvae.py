"""Auto-encoders of discrete codes: VQ-VAE, with one map of codes, and VQ-VAE-2, with a hierarchy.

They are trained by `vaeflow.losses.vq_vae`; with a `CodePrior` for each map they model images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from vaeflow._util.arrays import LOCAL, Axis, row_keys
from vaeflow._util.checks import as_array, bound
from vaeflow.models.preprocessing import Dequantized, check_observation
from vaeflow.nn import Conv, relu
from vaeflow.nn.autoregressive_map import resize_nearest
from vaeflow.typing import Preprocessor, Quantizer

if TYPE_CHECKING:
    from vaeflow.quantizers import Quantized

Codes = tuple[Int[Array, "batch map_height map_width *codebooks"], ...]


class CodeAutoEncoder(nn.Module):
    """Base of auto-encoders with maps of codes c(x) and a decoder p(x | c).

    There are one or several maps, listed from the smallest, the top, to the one next to the image.
    With any distribution P of codes, -log p(x | c(x)) - log P(c(x)) bounds -log p(x) from above,
    as p(x) is a sum over all codes; see `vaeflow.losses.vq_vae` and `CodePrior`.

    A subclass has the fields `decoder` and `observation`, as `VQVAE` describes them, and
    `quantizers`, and the methods `quantize` and `merge`.

    Raises a ValueError when it is made of a preprocessor and a likelihood that don't fit.
    """

    def __post_init__(self):
        check_observation(self.observation, self.decoder)
        super().__post_init__()

    @bound
    def __call__(
        self, images: UInt8[Array, "batch height width channel"]
    ) -> Float[Array, "batch map_height map_width latent"]:
        """Computes the decoder's input; `init` calls it with the first batch.

        Everything data-dependent is initialised from that batch, codes included. Keys come from the
        rng "params" in `init` and from "sample" otherwise.
        """
        rng = self.make_rng("params" if self.is_initializing() else "sample")
        values = self.observe(images, rng).values
        latents = self.merge([level.values for level in self.quantize(values)])
        self.decoder(latents, data=values)
        return latents

    def observe(
        self, images: UInt8[Array, "batch height width channel"], rng: Array
    ) -> Dequantized:
        """Converts images to values; arguments as for `VAE.observe`."""
        images = as_array("images", images)
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
          rng: A typed key, or one for each row; needed by quantizers that are random in training.
          axis: As for `vaeflow.quantizers.Quantizer`.
          train: As for `vaeflow.quantizers.Quantizer`.
          **options: Further arguments of the quantizers, such as a `temperature`.
        """
        raise NotImplementedError

    def merge(
        self, values: Sequence[Float[Array, "*batch map_height map_width latent"]]
    ) -> Float[Array, "*batch map_height map_width latents"]:
        """Merges the values of all levels, from the top, into the decoder's input."""
        raise NotImplementedError

    @bound
    def likelihood(
        self, latents: Float[Array, "*batch map_height map_width latents"]
    ) -> distrax.Distribution:
        """Builds p(x | c), one distribution of observed values for each input of the decoder."""
        return self.decoder(latents)

    @bound
    def encode(self, images: UInt8[Array, "batch height width channel"], rng: Array) -> Codes:
        """Encodes images to codes, from the top."""
        values = self.observe(images, rng).values
        return tuple(level.indices for level in self.quantize(values))

    @bound
    def lookup(
        self, codes: Sequence[Int[Array, "*batch map_height map_width *codebooks"]]
    ) -> Float[Array, "*batch map_height map_width latents"]:
        """Computes the decoder's input from codes, from the top; NaN where one is out of range.

        Raises:
          ValueError: If there isn't a map for each level.
        """
        if len(codes) != len(self.quantizers):
            raise ValueError(
                f"codes must be {len(self.quantizers)} maps from the top, got {len(codes)}"
            )
        pairs = zip(self.quantizers, codes, strict=True)
        return self.merge([quantizer.lookup(indices) for quantizer, indices in pairs])

    @bound
    def decode(
        self, codes: Sequence[Int[Array, "*batch map_height map_width *codebooks"]]
    ) -> UInt8[Array, "*batch height width channel"]:
        """Returns the means of p(x | c) as images; all zeros if a code is out of range."""
        return self.show(self.lookup(codes))

    @bound
    def show(
        self, latents: Float[Array, "*batch map_height map_width latents"]
    ) -> UInt8[Array, "*batch height width channel"]:
        """Returns the means of p(x | c) as images, for inputs of the decoder."""
        return self.observation.quantize(self.likelihood(latents).mean())


class VQVAE(CodeAutoEncoder):
    """One map of codes: features of the image, each replaced by a code of the quantizer.

    Source: van den Oord, Vinyals & Kavukcuoglu 2017, "Neural discrete representation learning".

    Attributes:
      encoder: From images to maps of features, such as `vaeflow.encoders.MapEncoder`.
      quantizer: One of `vaeflow.quantizers`.
      decoder: p(x | c): a `vaeflow.decoders.Decoder` of maps, with ``latent_ndims=3``.
      observation: Preprocessing of uint8 images, as for `VAE`.
    """

    encoder: nn.Module
    quantizer: Quantizer
    decoder: nn.Module
    observation: Preprocessor

    @property
    def quantizers(self) -> tuple[Quantizer, ...]:
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


class VQVAE2(CodeAutoEncoder):
    """A hierarchy of maps of codes: each level is quantised given those above, and all are decoded.

    Encoders make features h_1, ..., h_L of the image, each of those of the one before. The top map
    is h_L quantised. Below, an expander computes features of the size of h_l from the map above;
    h_l and these, through a 1x1 convolution, are quantised. The decoder is given all maps, those
    above the lowest resized to it by nearest neighbours.

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
      observation: Preprocessing of uint8 images, as for `VAE`.
      channels: Channels of the quantised features below the top; its encoder has the top's.
    """

    encoders: Sequence[nn.Module]
    expanders: Sequence[nn.Module]
    quantizers: Sequence[Quantizer]
    decoder: nn.Module
    observation: Preprocessor
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
        for level, (quantizer, inputs) in enumerate(
            zip(self.quantizers, reversed(features), strict=True)
        ):
            if levels:
                above = self.expanders[level - 1](levels[-1].values, shape=inputs.shape[1:])
                concat = jnp.concatenate([inputs, above], axis=-1)
                inputs = Conv(self.channels, (1, 1), name=f"joined_{level}")(concat)
            levels.append(quantizer(inputs, keys[level], axis=axis, train=train, **options))
        return tuple(levels)

    def merge(
        self, values: Sequence[Float[Array, "*batch map_height map_width latent"]]
    ) -> Float[Array, "*batch map_height map_width latents"]:
        """Resizes all maps to the lowest by nearest neighbours, and concatenates their channels."""
        size = values[-1].shape[-3:-1]
        return jnp.concatenate([resize_nearest(each, size) for each in values], axis=-1)
