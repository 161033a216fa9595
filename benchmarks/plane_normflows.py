"""normflows' side of the comparison of planar flows."""

from __future__ import annotations

import os
import time
from typing import Any

import normflows as nf
import torch

from benchmarks.plane_size import SAMPLES, PlaneSize


def make(**size: Any) -> Normflows:
    """Makes the side; nothing is computed yet."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return Normflows(PlaneSize(**size))


class Normflows:
    """A planar flow with normflows' own initialisation, and its optimiser."""

    def __init__(self, size: PlaneSize):
        self.size = size

    def initialize(self) -> None:
        """Initialises."""
        torch.manual_seed(self.size.seed)
        maps = [nf.flows.PlanarFlow((2,)) for _ in range(self.size.steps)]
        base = nf.distributions.DiagGaussian(2, trainable=False)
        self.model = nf.NormalizingFlow(base, maps, Target(self.size.energy))
        self.optimizer = torch.optim.Adam(self.model.parameters())

    def run(self, work: str) -> float:
        """Runs one training step; returns the seconds."""
        del work
        start = time.perf_counter()
        self._step(0)
        return time.perf_counter() - start

    def train(self) -> float:
        """Trains from the start; returns E_q[log q + U], to which log Z is to be added."""
        self.initialize()
        for step in range(self.size.updates):
            self._step(step)
        with torch.no_grad():
            return float(self.model.reverse_kld(SAMPLES))

    def _step(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.size.learning_rate_at(step)
        self.optimizer.zero_grad()
        loss = self.model.reverse_kld(self.size.batch_size, beta=self.size.beta_at(step))
        loss.backward()
        self.optimizer.step()


class Target(torch.nn.Module):
    """The densities of `vaeflow.distributions`, written for PyTorch."""

    def __init__(self, energy: str):
        super().__init__()
        self.energy = energy

    def log_prob(self, z: torch.Tensor) -> torch.Tensor:
        """Minus the energy."""
        z1, z2 = z[:, 0], z[:, 1]
        if self.energy == "ring":
            modes = torch.logaddexp(_bump(z1 - 2, 0.6), _bump(z1 + 2, 0.6))
            return _bump(z.norm(dim=1) - 2, 0.4) + modes
        end = _bump((z1.abs() - 4).clamp(min=0), 0.5)
        height = z2 - torch.sin(torch.pi / 2 * z1)
        if self.energy == "wave":
            return end + _bump(height, 0.4)
        if self.energy == "bulging_wave":
            apart, width = 3 * torch.exp(_bump(z1 - 1, 0.6)), 0.35
        else:
            apart, width = 3 * torch.sigmoid((z1 - 1) / 0.3), 0.4
        return end + torch.logaddexp(_bump(height, width), _bump(height + apart, 0.35))


def _bump(distance: torch.Tensor, width: float) -> torch.Tensor:
    return -0.5 * (distance / width) ** 2
