"""The variational auto-encoder that is measured, and the images that every side is given."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import UInt8

LEARNING_RATE = 1e-3
SHAPE = (28, 28, 1)
"""Height, width and channels of an image."""


@dataclasses.dataclass(frozen=True)
class VaeSize:
    """Sizes of a network and of its batch."""

    hidden: int = 512
    """Units of the one hidden layer of the encoder, and of the decoder."""
    latents: int = 32
    """Number of latents."""
    samples: int = 1
    """Samples of each image: 1 for the ELBO, more for the importance-weighted bound."""
    batch_size: int = 128
    """Images in a batch."""
    images: int = 60_000
    """Images in an epoch, where they are generated."""
    data: str = ""
    """Path of a NumPy archive with the array `train_image`; empty for generated images."""
    seed: int = 0
    """Seed of the parameters, of the noise and of the order of the images."""


def training_images(size: VaeSize) -> UInt8[np.ndarray, "image height width channel"]:
    """Grey images, equal on every side."""
    if size.data:
        with np.load(size.data) as archive:
            return archive["train_image"].reshape(-1, *SHAPE)
    return generated(size.images)


def generated(count: int) -> UInt8[np.ndarray, "image height width channel"]:
    """Draws blobs: a bright spot of varying place and width on black, as digits have."""
    generator = np.random.default_rng(0)
    place = generator.uniform(8, 20, (2, count, 1))
    width = generator.uniform(2, 5, (2, count, 1))
    rows, columns = np.exp(-(((np.arange(28) - place) / width) ** 2)).astype(np.float32)
    return np.round(255 * rows[:, :, None, None] * columns[:, None, :, None]).astype(np.uint8)


def step_operations(size: VaeSize) -> int:
    """Multiplications and additions of the products of a training step, nothing counted twice.

    A layer's gradient costs as much as two evaluations, one for its input and one for its kernel;
    the images need no gradient.
    """
    pixels = int(np.prod(SHAPE))
    first = 2 * pixels * size.hidden
    encoder = 3 * size.hidden * 2 * size.latents
    decoder = 3 * size.samples * (size.latents * size.hidden + size.hidden * pixels)
    return 2 * size.batch_size * (first + encoder + decoder)
