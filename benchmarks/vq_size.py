"""The quantizers, priors and auto-encoders that are measured, and the vectors of every side."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np
from jaxtyping import Float

Kind = Literal[
    "average",
    "gradient",
    "rotation",
    "cosine",
    "residual",
    "finite-scalar",
    "lookup-free",
    "gumbel",
]
Network = Literal["PixelSNAIL", "GatedPixelCNN"]
Way = Literal["incremental", "naive"]
LEVELS = (8, 8, 8)
"""Levels of the finite scalar quantizer: 512 codes."""
STAGES = 4
"""Stages of the residual quantizer."""
DECAY = 0.99
"""Of moving averages."""
RESTART_BELOW = 0.01
"""Share of even use below which a code restarts."""
COMMITMENT = 0.25
"""Weight of the squared distance to a code, all channels added up."""
ENTROPY = 0.1
"""Weight of the entropy of the lookup-free quantizer."""
CENTRES = 1024
"""Clusters that the vectors lie around."""


@dataclasses.dataclass(frozen=True)
class QuantizerSize:
    """A quantizer and its batch."""

    kind: Kind = "average"
    """average: codes as moving averages. gradient: codes learned by gradients. rotation: averages,
    and the gradient of the rotation trick. cosine: averages of directions. residual: stages of
    averages."""
    codes: int = 512
    """Number of codes, of a stage."""
    maps: int = 64
    """Maps in a batch."""
    side: int = 8
    """Height and width of a map."""
    vector: int = 64
    """Channels of a vector, where the quantizer doesn't say."""
    batches: int = 4
    """Batches, taken in turn."""
    seed: int = 0
    """Seed of what is drawn in training."""

    def __post_init__(self):
        given = {"finite-scalar": math.prod(LEVELS), "lookup-free": 2**self.channels}
        if self.codes != given.get(self.kind, self.codes):
            raise ValueError(
                f"codes of a {self.kind} quantizer must be {given[self.kind]}, got {self.codes}"
            )

    @property
    def channels(self) -> int:
        """Channels of a vector."""
        bits = (self.codes - 1).bit_length()
        return {"finite-scalar": len(LEVELS), "lookup-free": bits}.get(self.kind, self.vector)

    @property
    def vectors(self) -> int:
        """Vectors in a batch."""
        return self.maps * self.side**2

    def clustered(self, count: int, seed: int) -> Float[np.ndarray, "vector channel"]:
        """Draws vectors around the same centres."""
        centres = np.random.default_rng(0).normal(size=(CENTRES, self.channels))
        generator = np.random.default_rng(seed)
        noise = 0.5 * generator.normal(size=(count, self.channels))
        return (centres[generator.integers(CENTRES, size=count)] + noise).astype(np.float32)

    def features(self) -> Float[np.ndarray, "step batch height width channel"]:
        """All batches, equal on every side."""
        shape = (self.batches, self.maps, self.side, self.side, self.channels)
        return self.clustered(self.batches * self.vectors, 1).reshape(shape)

    def first_codes(self) -> Float[np.ndarray, "*stages code channel"]:
        """Where codes start on every side: at other vectors; those of later stages are smaller."""
        if self.kind != "residual":
            return self.clustered(self.codes, 2)
        return np.stack([self.clustered(self.codes, 2 + s) / 2**s for s in range(STAGES)])

    def readout(self) -> Float[np.ndarray, " channel"]:
        """Weights of the values in the loss."""
        return np.random.default_rng(3).normal(size=self.channels).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class PriorSize:
    """A prior and the samples drawn from it."""

    network: Network = "PixelSNAIL"
    """Class of the network."""
    side: int = 7
    """Height and width of a map."""
    codes: int = 512
    """Number of codes."""
    channels: int = 64
    """Channels of each layer."""
    blocks: int = 2
    """Blocks of layers."""
    count: int = 16
    """Maps drawn at a time."""
    seed: int = 0
    """Seed of the parameters and of the samples."""


@dataclasses.dataclass(frozen=True)
class VqStepSize:
    """A whole auto-encoder of images with one map of codes, and its batch."""

    channels: tuple[int, ...] = (32, 64)
    """Channels of the convolutions; each halves height and width."""
    blocks: int = 2
    """Residual blocks of the encoder, and of the decoder."""
    hidden: int = 32
    """Channels within a residual block."""
    codes: int = 512
    """Number of codes."""
    latents: int = 64
    """Channels of a code."""
    batch_size: int = 128
    """Images in a batch."""
    images: int = 128
    """Images, where they are generated."""
    data: str = ""
    """Path of a NumPy archive with the array `train_image`; empty for generated images."""
    seed: int = 0
    """Seed of the parameters and of the noise."""
