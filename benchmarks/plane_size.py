"""The planar flow that is measured, and how every side trains it."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

EnergyName = Literal["ring", "wave", "bulging_wave", "forked_wave"]


@dataclasses.dataclass(frozen=True)
class PlaneSize:
    """A planar flow on one of the energies, trained by Adam with a cosine and annealing."""

    energy: EnergyName = "wave"
    """The energy."""
    steps: int = 32
    """Planar maps K."""
    batch_size: int = 256
    """Samples in a batch."""
    updates: int = 5000
    """Training steps."""
    learning_rate: float = 1e-2
    """Largest learning rate; it falls to zero along half a cosine."""
    seed: int = 0
    """Seed of the parameters and of the noise."""

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a step."""
        return self.learning_rate * (1 + math.cos(math.pi * step / self.updates)) / 2

    def beta_at(self, step: int) -> float:
        """Weight of the energy at a step: it rises to 1 over the first half."""
        return min(1.0, 0.01 + 2 * step / self.updates)


SAMPLES = 50_000
"""Samples from which the free energy is taken in the end."""
