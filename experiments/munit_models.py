"""MUNIT for pairs of domains: its networks, its players and what they minimise."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import optax

import vaeflow as vf
from vaeflow import decoders, encoders, losses, nn, training
from vaeflow.training.optimizer import weight_decay_mask

Shape = tuple[int, int, int]
PLAYERS = ("discriminator", "generator")
"""The players in the order of their updates."""
DECAYS = (0.5, 0.999)
"""Of Adam's averages, as in the paper."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The networks of each domain."""

    content_channels: tuple[int, ...] = (64, 128, 256)
    """Channels of the convolutions that make the content, and in reverse of those that make images
    of it; all but the first halve height and width."""
    blocks: int = 4
    """Residual blocks of the encoder of the content, and of the decoder."""
    style_channels: tuple[int, ...] = (64, 128, 256, 256, 256)
    """Channels of the convolutions that make the style; all but the first halve."""
    style_size: int = 8
    """Number of entries of a style."""
    hidden: int = 256
    """Units of the two hidden layers that make of a style what it does to features."""
    discriminator_channels: tuple[int, ...] = (64, 128, 256, 512)
    """Channels of the convolutions of a discriminator, each of which halves."""
    scales: int = 3
    """Sizes of an image that are judged, each half the one before."""
    spectral: bool = False
    """Divide kernels of the discriminators by their spectral norms."""

    def __post_init__(self) -> None:
        """Refuses sizes out of range.

        Raises:
          ValueError: Naming the field, the value given and what is allowed.
        """
        for name in ("content_channels", "style_channels", "discriminator_channels"):
            channels = getattr(self, name)
            if not channels or min(channels) < 1:
                raise ValueError(f"model.{name} must be one or more from 1 up, got {channels}")
        for name in ("style_size", "hidden", "scales"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be at least 1, got {getattr(self, name)}")
        if self.blocks < 0:
            raise ValueError(f"model.blocks must be at least 0, got {self.blocks}")


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights of what the auto-encoders minimise, beside what the discriminators say."""

    reconstruction: float = 10.0
    """Weight of the error of an image made of its own content and style."""
    content: float = 1.0
    """Weight of the error of the content found in a translation."""
    style: float = 1.0
    """Weight of the error of the style found in a translation."""
    cycle: float = 0.0
    """Weight of the error of an image translated there and back; 0 does without, and is faster."""

    def __post_init__(self) -> None:
        """Refuses weights below zero.

        Raises:
          ValueError: Naming the field, the value given and what is allowed.
        """
        for name, value in dataclasses.asdict(self).items():
            if not value >= 0:
                raise ValueError(f"loss.{name} must be at least 0, got {value}")


SMALL = ModelConfig(
    content_channels=(16, 32),
    blocks=3,
    style_channels=(16, 32, 64),
    hidden=64,
    discriminator_channels=(32, 64, 128),
    scales=2,
)
"""For images of about 28 pixels, whose lines a map of a quarter of the size wouldn't hold."""

TRAIN = training.TrainConfig(
    steps=2500,
    batch_size=8,
    learning_rate=5e-4,
    ema_decay=0.999,
    scan_steps=20,
    log_every=20,
    checkpoint_every=500,
)
"""For those."""


def build(config: ModelConfig, shapes: Mapping[str, Shape]) -> vf.models.MUNITGame:
    """Builds both players for images of the shapes of domains "a" and "b"."""

    def coder(shape: Shape) -> vf.models.ContentStyleCoder:
        return vf.models.ContentStyleCoder(
            content=encoders.ContentEncoder(config.content_channels, num_blocks=config.blocks),
            style=encoders.Encoder(
                encoders.StyleEncoder(config.style_channels),
                encoders.PointMassPosterior(config.style_size),
            ),
            decoder=decoders.AdaINDecoder(
                config.content_channels[::-1],
                num_blocks=config.blocks,
                hidden_sizes=(config.hidden, config.hidden),
            ),
            image_shape=tuple(shape),
        )

    def judge() -> nn.MultiScaleDiscriminator:
        return nn.MultiScaleDiscriminator(
            num_scales=config.scales,
            channels=config.discriminator_channels,
            spectral=config.spectral,
        )

    return vf.models.MUNITGame(
        vf.models.MUNIT(coder(shapes["a"]), coder(shapes["b"])),
        vf.models.Discriminators(judge(), judge()),
    )


def losses_of(config: LossConfig) -> dict[str, Any]:
    """The loss of each player."""
    return {
        "discriminator": losses.munit_discriminator,
        "generator": functools.partial(losses.munit, **dataclasses.asdict(config)),
    }


def optimizers_of(config: training.TrainConfig) -> dict[str, Any]:
    """The optimiser of each player, in the order of their updates.

    Weight decay is added to the gradient, as in the paper's program, before Adam scales it.
    """
    plain = training.make_optimizer(dataclasses.replace(config, weight_decay=0), DECAYS)
    penalty = optax.add_decayed_weights(config.weight_decay, mask=weight_decay_mask)
    return {player: optax.chain(penalty, plain) for player in PLAYERS}
