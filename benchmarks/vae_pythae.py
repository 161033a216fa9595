"""pythae's side: its variational auto-encoder with its own networks, which have 512 units."""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.trainers import BaseTrainer, BaseTrainerConfig

from benchmarks.vae_size import LEARNING_RATE, SHAPE, VaeSize, training_images

HIDDEN = 512
"""Units of the hidden layers of pythae's networks, which it fixes."""


def make(**size: Any) -> Pythae:
    """Makes the side; nothing is computed yet."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return Pythae(VaeSize(**size))


class Pythae:
    """A model and its trainer."""

    def __init__(self, size: VaeSize):
        if size.hidden != HIDDEN or size.samples != 1:
            raise ValueError(f"pythae's networks have {HIDDEN} units and one sample, got {size}")
        self.size = size

    def initialize(self) -> dict[str, Any]:
        """Initialises; returns the number of parameters and their types."""
        torch.manual_seed(self.size.seed)
        images = torch.from_numpy(training_images(self.size).transpose(0, 3, 1, 2)).float() / 255
        self.batch = {"data": images[: self.size.batch_size]}
        height, width, channels = SHAPE
        config = VAEConfig(
            input_dim=(channels, height, width),
            latent_dim=self.size.latents,
            reconstruction_loss="bce",
        )
        self.model = VAE(config)
        count = len(images) // self.size.batch_size * self.size.batch_size
        self.trainer = BaseTrainer(
            self.model,
            BaseDataset(images[:count], torch.zeros(count)),
            training_config=BaseTrainerConfig(
                output_dir=tempfile.mkdtemp(),
                per_device_train_batch_size=self.size.batch_size,
                learning_rate=LEARNING_RATE,
                optimizer_cls="Adam",
                no_cuda=True,
            ),
        )
        self.trainer.prepare_training()
        self.model = self.trainer.model
        leaves = list(self.model.parameters())
        dtypes = {str(leaf.dtype).removeprefix("torch.") for leaf in leaves}
        return {"parameters": sum(leaf.numel() for leaf in leaves), "dtypes": sorted(dtypes)}

    def run(self, calls: int = 1) -> float:
        """Makes some steps in a plain loop; returns the seconds that each took."""
        self.model.train()
        start = time.perf_counter()
        for _ in range(calls):
            self.last = self.model(self.batch).loss
            self.trainer.optimizer.zero_grad()
            self.last.backward()
            self.trainer.optimizer.step()
        return (time.perf_counter() - start) / calls

    def loss(self) -> float:
        """The loss of the last step, in nats."""
        return float(self.last.detach())

    def epoch(self, way: str) -> float:
        """Goes through all images once; returns the seconds.

        Args:
          way: "trainer": the loop is pythae's own.
        """
        assert way == "trainer"
        start = time.perf_counter()
        self.trainer.train_step(1)
        return time.perf_counter() - start
