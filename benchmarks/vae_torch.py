"""The same variational auto-encoder in PyTorch without a library."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.vae_size import LEARNING_RATE, SHAPE, VaeSize, training_images
from benchmarks.vq_size import VqStepSize


def make(**size: Any) -> Torch:
    """Makes the side; nothing is computed yet."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    given = VaeSize(**size)
    return Torch(given, lambda: Network(given))


class Network(nn.Module):
    """Encoder and decoder of one hidden layer each."""

    def __init__(self, size: VaeSize):
        super().__init__()
        self.samples = size.samples
        pixels = math.prod(SHAPE)
        self.encoder = nn.Sequential(nn.Linear(pixels, size.hidden), nn.ReLU())
        self.mean = nn.Linear(size.hidden, size.latents)
        self.log_variance = nn.Linear(size.hidden, size.latents)
        self.decoder = nn.Sequential(
            nn.Linear(size.latents, size.hidden), nn.ReLU(), nn.Linear(size.hidden, pixels)
        )

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Computes the mean of the bound that is asked for, in nats, with the opposite sign."""
        return self.negative_elbo(images) if self.samples == 1 else self.negative_bound(images)

    def negative_elbo(self, images: torch.Tensor) -> torch.Tensor:
        """Computes the mean of -log p(x | z) + KL(q || p) in nats, from one sample an image."""
        features = self.encoder(images)
        mean, log_variance = self.mean(features), self.log_variance(features)
        z = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()
        entropy = functional.binary_cross_entropy_with_logits(
            self.decoder(z), images, reduction="sum"
        )
        return (entropy + kl) / len(images)

    def negative_bound(self, images: torch.Tensor) -> torch.Tensor:
        """Computes the mean of -log (1/k) sum p(x, z) / q(z | x) in nats."""
        features = self.encoder(images)
        mean, log_variance = self.mean(features), self.log_variance(features)
        noise = torch.randn(self.samples, *mean.shape)
        z = mean + torch.exp(log_variance / 2) * noise
        logits = self.decoder(z)
        log_likelihood = (images * logits - functional.softplus(logits)).sum(-1)
        log_ratio = 0.5 * (noise.square() + log_variance - z.square()).sum(-1)
        log_weights = log_likelihood + log_ratio
        return (math.log(self.samples) - torch.logsumexp(log_weights, 0)).mean()


class Torch:
    """A network and its optimiser."""

    def __init__(self, size: VaeSize | VqStepSize, build: Callable[[], nn.Module]):
        self.size = size
        self.build = build

    def initialize(self) -> dict[str, Any]:
        """Initialises; returns the number of parameters and their types."""
        torch.manual_seed(self.size.seed)
        images = torch.from_numpy(training_images(self.size).reshape(-1, math.prod(SHAPE)))
        images = images.float() / 255
        self.batch = images[: self.size.batch_size]
        self.loader = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(images),
            self.size.batch_size,
            shuffle=True,
            drop_last=True,
        )
        self.network = self.build()
        self.optimizer = torch.optim.Adam(self.network.parameters(), LEARNING_RATE)
        leaves = list(self.network.parameters())
        dtypes = {str(leaf.dtype).removeprefix("torch.") for leaf in leaves}
        return {"parameters": sum(leaf.numel() for leaf in leaves), "dtypes": sorted(dtypes)}

    def run(self, calls: int = 1) -> float:
        """Makes some steps; returns the seconds that each took."""
        start = time.perf_counter()
        for _ in range(calls):
            self._step(self.batch)
        return (time.perf_counter() - start) / calls

    def loss(self) -> float:
        """The loss of the last step, in nats."""
        return float(self.last)

    def epoch(self, way: str) -> float:
        """Goes through all images once; returns the seconds.

        Args:
          way: "loader": batches are put together by a DataLoader over images in memory.
        """
        assert way == "loader"
        start = time.perf_counter()
        for (images,) in self.loader:
            self._step(images)
        return time.perf_counter() - start

    def matmul(self, rows: int) -> float:
        """Multiplies two square matrices once; returns the operations per second."""
        matrix = torch.randn(rows, rows)
        start = time.perf_counter()
        matrix @ matrix
        return 2 * rows**3 / (time.perf_counter() - start)

    def _step(self, images: torch.Tensor) -> None:
        binary = torch.bernoulli(images)
        loss = self.network.loss(binary)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.last = loss.detach()
