"""The Glow that is measured, and the images that every side is given."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float32


@dataclasses.dataclass(frozen=True)
class Size:
    """Sizes of a Glow and of its batch."""

    levels: int = 3
    """Levels L of the flow."""
    steps: int = 8
    """Steps K of each level."""
    width: int = 128
    """Hidden channels of the coupling networks."""
    batch_size: int = 16
    """Images in a batch."""
    image_size: int = 32
    """Height and width of an image."""
    channels: int = 3
    """Channels of an image."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return self.image_size, self.image_size, self.channels


def dequantized_images(size: Size) -> Float32[np.ndarray, "batch height width channel"]:
    """Images of random bytes with uniform noise, scaled to [-0.5, 0.5); equal on every side."""
    generator = np.random.default_rng(0)
    shape = (size.batch_size, *size.shape)
    noisy = generator.integers(0, 256, shape) + generator.uniform(size=shape)
    return (noisy / 256 - 0.5).astype(np.float32)


LEARNING_RATE = 1e-3
