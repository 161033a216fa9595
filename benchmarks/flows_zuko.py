"""zuko's side of the comparison of flows of vectors."""

from __future__ import annotations

from typing import Any

import torch
import zuko

from benchmarks.flow_size import FlowSize
from benchmarks.flows_torch import TorchSide


def make(**size: Any) -> Zuko:
    """Makes the side; nothing is computed yet."""
    return Zuko(FlowSize(**size))


class Zuko(TorchSide):
    """zuko's ready-made flows; its splines' interval is [-5, 5]."""

    def build(self) -> torch.nn.Module:
        """Builds the flow."""
        shared = {"transforms": self.size.steps, "hidden_features": self.size.hidden}
        if self.size.kind == "affine-autoregressive":
            return zuko.flows.MAF(self.size.entries, **shared)
        passes = 2 if self.size.kind == "spline-coupling" else None
        return zuko.flows.NSF(self.size.entries, bins=self.size.bins, passes=passes, **shared)

    def log_prob(self, rows: torch.Tensor) -> torch.Tensor:
        """Log-densities of rows, in nats."""
        return self.flow().log_prob(rows)

    def sample(self, count: int) -> torch.Tensor:
        """Draws rows."""
        return self.flow().sample((count,))
