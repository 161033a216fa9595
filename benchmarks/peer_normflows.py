"""normflows' side: its Glow, put together as its documentation does."""

from __future__ import annotations

import os
import time
from typing import Any

import normflows as nf
import numpy as np
import torch

from benchmarks.size import LEARNING_RATE, Size, dequantized_images


def make(**size: int) -> Peer:
    """Makes the side; nothing is computed yet."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return Peer(Size(**size))


class Peer:
    """A Glow, and its optimiser."""

    def __init__(self, size: Size):
        self.size = size

    def initialize(self) -> dict[str, Any]:
        """Initialises from the images; returns the number of parameters and their types."""
        torch.manual_seed(0)
        images = dequantized_images(self.size)
        self.images = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        self.model = build(self.size)
        with torch.no_grad():  # which initialises every actnorm
            self.model.log_prob(self.images, None)
        self.optimizer = torch.optim.Adam(self.model.parameters(), LEARNING_RATE)
        dtypes = {str(leaf.dtype).removeprefix("torch.") for leaf in self.model.parameters()}
        count = sum(leaf.numel() for leaf in self.model.parameters())
        return {"parameters": count, "dtypes": sorted(dtypes)}

    def loss(self) -> float:
        """Mean nats per dimension of the images."""
        with torch.no_grad():
            return float(self._loss())

    def run(self, work: str) -> float:
        """Runs once; returns the seconds."""
        start = time.perf_counter()
        if work == "step":
            self.model.train()
            self.optimizer.zero_grad()
            self._loss().backward()
            self.optimizer.step()
        else:
            self.model.eval()
            with torch.no_grad():
                if work == "log_prob":
                    self.model.log_prob(self.images, None)
                else:
                    self.model.sample(len(self.images))
        return time.perf_counter() - start

    def matmul(self, rows: int) -> float:
        """Multiplies two square matrices once; returns the operations per second."""
        matrix = torch.randn(rows, rows)
        start = time.perf_counter()
        matrix @ matrix
        return 2 * rows**3 / (time.perf_counter() - start)

    def _loss(self) -> torch.Tensor:
        return -self.model.log_prob(self.images, None).mean() / self.images[0].numel()


def build(size: Size) -> nf.MultiscaleFlow:
    """Builds the flow; normflows numbers the levels from the smallest images up."""
    height, _, channels = size.shape
    bases, levels, merges = [], [], []
    for level in range(size.levels):
        deep = size.levels - level
        blocks = [
            nf.flows.GlowBlock(
                channels * 2 ** (deep + 1), size.width, split_mode="channel", scale=True
            )
            for _ in range(size.steps)
        ]
        levels.append([*blocks, nf.flows.Squeeze()])
        if level:
            merges.append(nf.flows.Merge())
        kept = channels * 2 ** (deep if level else deep + 1)
        side = height // 2**deep
        bases.append(nf.distributions.DiagGaussian((kept, side, side)))
    return nf.MultiscaleFlow(bases, levels, merges, class_cond=False)
