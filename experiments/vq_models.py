"""Auto-encoders with codes, and priors over their codes, by name of their parts."""

from __future__ import annotations

import dataclasses
from typing import Literal

import flax.linen as nn

import vaeflow as vf
from experiments.latent_models import LIKELIHOODS
from vaeflow import quantizers

FINITE_SCALAR_LEVELS = {
    64: (8, 8),
    256: (8, 6, 5),
    512: (8, 8, 8),
    1024: (8, 5, 5, 5),
    4096: (7, 5, 5, 5, 5),
}
"""Levels of each channel by about how many codes they make.

Source: Mentzer et al. 2024, "Finite scalar quantization: VQ-VAE made simple", section 4.1: few
channels, of at least five levels each.
"""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Which auto-encoder."""

    levels: int = 1
    """Number of maps of codes. The lowest is found after all `channels`; each above it has half the
    height and width, rounded up."""
    channels: tuple[int, ...] = (32, 64)
    """Channels of the convolutions down to the lowest map; each halves height and width."""
    blocks: int = 2
    """Residual blocks of each encoder and decoder."""
    hidden: int = 32
    """Channels within a residual block."""
    codes: int = 512
    """Codes of each level; about so many where they are finite-scalar."""
    latents: int = 64
    """Numbers that a code stands for; finite-scalar and lookup-free codes have their own."""
    quantizer: Literal["average", "gradient", "rotation", "finite-scalar", "lookup-free"] = (
        "average"
    )
    """How features become codes. average: the nearest, codes being moving averages of features.
    gradient: the same with a loss that moves codes. rotation: as average, with gradients by the
    rotation trick. The last two have no learned codes."""
    restart_below: float = 0.01
    """Share of even use below which a code that is a moving average starts anew; 0 for never."""
    commitment: float = 0.25
    """Weight of the features' distance to their codes."""
    likelihood: Literal[
        "bernoulli", "continuous-bernoulli", "gaussian", "discretized-logistic", "categorical"
    ] = "discretized-logistic"
    """Of an entry of an image. bernoulli: images are binarised anew each time, but once for the
    codes that priors are trained on. The next two are
    densities of images with uniform noise; the last two probabilities of their 256 levels."""

    def __post_init__(self) -> None:
        """Refuses values out of range.

        Raises:
          ValueError: Naming the field, the value given and what is allowed.
        """
        for name in ("levels", "blocks", "hidden", "codes", "latents"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be at least 1, got {getattr(self, name)}")
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"model.channels must each be at least 1, got {self.channels}")
        if not 0 <= self.restart_below < 1:
            raise ValueError(f"model.restart_below must be in [0, 1), got {self.restart_below}")
        if self.quantizer == "finite-scalar" and self.codes not in FINITE_SCALAR_LEVELS:
            raise ValueError(
                f"model.codes must be one of {sorted(FINITE_SCALAR_LEVELS)} for finite-scalar "
                f"codes, got {self.codes}"
            )
        if self.quantizer == "lookup-free" and (self.codes < 2 or self.codes.bit_count() != 1):
            raise ValueError(
                f"model.codes must be a power of 2, at least 2, for lookup-free codes, got "
                f"{self.codes}"
            )


@dataclasses.dataclass(frozen=True)
class PriorConfig:
    """Which priors over codes: PixelSNAIL for the top, gated PixelCNNs given the level above."""

    channels: int = 128
    """Channels of each network, a multiple of 8."""
    blocks: int = 2
    """Blocks of the top's network, each of residual blocks and attention."""
    residuals: int = 3
    """Residual blocks before each attention."""
    lower_blocks: int = 8
    """Layers of the networks of the levels below."""
    dropout: float = 0.1
    """Share of channels that are dropped in training."""
    classes: int | None = None
    """Number of classes of the data where the priors are given labels."""

    def __post_init__(self) -> None:
        """Refuses values out of range.

        Raises:
          ValueError: Naming the field, the value given and what is allowed.
        """
        for name in ("channels", "blocks", "residuals", "lower_blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"prior.{name} must be at least 1, got {getattr(self, name)}")
        if self.channels % vf.nn.PixelSNAIL.num_heads:
            raise ValueError(
                f"prior.channels must be a multiple of {vf.nn.PixelSNAIL.num_heads}, got "
                f"{self.channels}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"prior.dropout must be in [0, 1), got {self.dropout}")


def level_names(levels: int) -> tuple[str, ...]:
    """What to call the levels, from the top."""
    if levels == 1:
        return ("codes",)
    middle = ["middle"] if levels == 3 else [f"middle_{level}" for level in range(1, levels - 1)]
    return ("top", *middle, "bottom")


def map_shapes(config: ModelConfig, shape: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Height and width of the map of each level, from the top."""
    factors = [2 ** (len(config.channels) + level) for level in range(config.levels)]
    return [(-(-shape[0] // factor), -(-shape[1] // factor)) for factor in reversed(factors)]


def quantizer(config: ModelConfig) -> tuple[nn.Module, int]:
    """The quantizer of a level, and how many channels it takes."""
    if config.quantizer == "finite-scalar":
        levels = FINITE_SCALAR_LEVELS[config.codes]
        return quantizers.FiniteScalarQuantizer(levels), len(levels)
    if config.quantizer == "lookup-free":
        bits = config.codes.bit_length() - 1
        return quantizers.LookupFreeQuantizer(bits), bits
    average = quantizers.MovingAverage(restart_below=config.restart_below)
    gradients = {"rotation": quantizers.rotation_trick}
    vector = quantizers.VectorQuantizer(
        config.codes,
        average=None if config.quantizer == "gradient" else average,
        gradient=gradients.get(config.quantizer, quantizers.straight_through),
    )
    return vector, config.latents


def build_auto_encoder(
    config: ModelConfig, shape: tuple[int, int, int]
) -> vf.models.VQVAE | vf.models.VQVAE2:
    """Builds an auto-encoder of images of a shape."""
    likelihood, observation = LIKELIHOODS[config.likelihood]
    latents = quantizer(config)[1]
    sizes = {"num_blocks": config.blocks, "hidden_features": config.hidden}
    wide = config.channels[-1]
    network = vf.decoders.MapDecoder(config.channels[::-1], **sizes)
    decoder = vf.decoders.Decoder(network, likelihood(), shape, latent_ndims=3)
    above = config.levels - 1
    first = vf.encoders.MapEncoder(config.channels, features=wide if above else latents, **sizes)
    if not above:
        return vf.models.VQVAE(first, quantizer(config)[0], decoder, observation())
    features = [wide] * (above - 1) + [latents]
    return vf.models.VQVAE2(
        (first, *(vf.encoders.MapEncoder((wide,), features=count, **sizes) for count in features)),
        tuple(vf.decoders.MapDecoder((wide,), **sizes) for _ in range(above)),
        tuple(quantizer(config)[0] for _ in range(config.levels)),
        decoder,
        observation(),
        latents,
    )


def build(
    config: ModelConfig, prior: PriorConfig, shape: tuple[int, int, int]
) -> vf.models.CodeModel:
    """Builds an auto-encoder of images of a shape, and the prior of each level."""
    shapes = map_shapes(config, shape)
    codes = quantizer(config)[0].num_codes
    sizes = {"channels": prior.channels, "num_blocks": prior.blocks, "dropout": prior.dropout}
    top = vf.nn.PixelSNAIL(shapes[0], num_codes=codes, num_residuals=prior.residuals, **sizes)
    priors = [vf.models.CodePrior(top, num_classes=prior.classes)]
    for size in shapes[1:]:
        network = vf.nn.GatedPixelCNN(
            size,
            num_codes=codes,
            channels=prior.channels,
            num_blocks=prior.lower_blocks,
            dropout=prior.dropout,
        )
        above = vf.nn.UpsampledConditioner(size, num_codes=codes, channels=prior.channels)
        priors.append(vf.models.CodePrior(network, num_classes=prior.classes, above=above))
    return vf.models.CodeModel(build_auto_encoder(config, shape), tuple(priors))
