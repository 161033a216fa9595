"""The same auto-encoder in PyTorch, with the quantizer of vector-quantize-pytorch."""

from __future__ import annotations

import itertools
import math
import os
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from vector_quantize_pytorch import VectorQuantize

from benchmarks.vae_size import SHAPE
from benchmarks.vae_torch import Torch
from benchmarks.vq_size import VqStepSize
from benchmarks.vq_torch import averages, restart_at_even_use


def make(**size: Any) -> Torch:
    """Makes the side; nothing is computed yet."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    given = VqStepSize(**size)
    return Torch(given, lambda: Network(given))


class ResidualBlock(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x))))."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.first = nn.Conv2d(channels, hidden, 3, padding=1)
        self.second = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keeps the shape."""
        return x + self.second(functional.relu(self.first(functional.relu(x))))


class Network(nn.Module):
    """Encoder, quantizer and decoder."""

    def __init__(self, size: VqStepSize):
        super().__init__()
        channels, deepest = size.channels, size.channels[-1]
        blocks = [[ResidualBlock(deepest, size.hidden) for _ in range(size.blocks)] for _ in "ed"]
        down = [
            layer
            for pair in itertools.pairwise((SHAPE[-1], *channels))
            for layer in (nn.Conv2d(*pair, 4, 2, 1), nn.ReLU())
        ]
        up = [
            layer
            for pair in itertools.pairwise((*channels[::-1], SHAPE[-1]))
            for layer in (nn.ReLU(), nn.ConvTranspose2d(*pair, 4, 2, 1))
        ]
        self.encoder = nn.Sequential(
            *down[:-1], *blocks[0], nn.ReLU(), nn.Conv2d(deepest, size.latents, 1)
        )
        vectors = size.batch_size * math.prod(n // 2 ** len(channels) for n in SHAPE[:2])
        options = averages(size.codes, size.latents, vectors)
        self.quantizer = VectorQuantize(**options, kmeans_init=True, accept_image_fmap=True)
        restart_at_even_use(self.quantizer, vectors)
        self.decoder = nn.Sequential(
            nn.Conv2d(size.latents, deepest, 3, padding=1), *blocks[1], *up
        )
        self.offset = nn.Parameter(torch.zeros(SHAPE[-1], *SHAPE[:2]))

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Computes the mean of -log p(x | c(x)) in nats, and of the weighted commitment."""
        images = images.reshape(-1, SHAPE[-1], *SHAPE[:2])
        values, _, commitment = self.quantizer(self.encoder(images))
        entropy = functional.binary_cross_entropy_with_logits(
            self.decoder(values) + self.offset, images, reduction="sum"
        )
        return entropy / len(images) + commitment
