"""The MUNIT that is measured, and the images that every side is given."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import UInt8

from benchmarks.vae_size import generated

LEARNING_RATE = 5e-4
DECAYS = (0.5, 0.999)
"""Of Adam's averages."""
WEIGHTS = {"reconstruction": 10.0, "content": 1.0, "style": 1.0}
"""Of what the auto-encoders minimise, in addition to what the discriminators say."""
SHAPES = {"a": (28, 28, 1), "b": (28, 28, 3)}
"""Height, width and channels of an image of each domain."""


@dataclasses.dataclass(frozen=True)
class MunitSize:
    """The networks of each domain, and a batch."""

    content_channels: tuple[int, ...] = (16, 32)
    """Channels of the convolutions that make the content, and in reverse of those that make images
    of it; all but the first halve height and width."""
    blocks: int = 3
    """Residual blocks of the encoder of the content, and of the decoder."""
    style_channels: tuple[int, ...] = (16, 32, 64)
    """Channels of the convolutions that make the style; all but the first halve."""
    style_size: int = 8
    """Number of entries of a style."""
    hidden: int = 64
    """Units of the two hidden layers that make of a style what it does to features."""
    discriminator_channels: tuple[int, ...] = (32, 64, 128)
    """Channels of the convolutions of a discriminator, each of which halves, rounding up."""
    scales: int = 2
    """Sizes of an image that are judged, each half the one before."""
    batch_size: int = 8
    """Images of each domain in a batch."""
    seed: int = 0
    """Seed of the parameters and of the styles that are drawn."""

    def __post_init__(self):
        if len(self.content_channels) > 3:
            raise ValueError(
                "content_channels must be at most 3, as 28 pixels are halved without a rest only "
                f"twice, got {self.content_channels}"
            )

    def images(self) -> dict[str, UInt8[np.ndarray, "image height width channel"]]:
        """A batch of each domain, equal on every side: grey blobs, and other blobs in colours."""
        blobs = generated(2 * self.batch_size)
        colours = np.random.default_rng(1).uniform(0.2, 1, (self.batch_size, 1, 1, 3))
        return {
            "a": blobs[: self.batch_size],
            "b": np.round(blobs[self.batch_size :] * colours).astype(np.uint8),
        }
