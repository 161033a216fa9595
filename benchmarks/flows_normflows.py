"""normflows' side of the comparison of flows of vectors."""

from __future__ import annotations

from typing import Any

import normflows as nf
import torch

from benchmarks.flow_size import BOUND, FlowSize
from benchmarks.flows_torch import TorchSide


def make(**size: Any) -> Normflows:
    """Makes the side; nothing is computed yet."""
    return Normflows(FlowSize(**size))


class Normflows(TorchSide):
    """normflows' layers; those of splines have one residual block of two layers after the first."""

    def build(self) -> torch.nn.Module:
        """Builds the flow."""
        layers = []
        for _ in range(self.size.steps):
            layers += [self._layer(), nf.flows.LULinearPermute(self.size.entries)]
        return nf.NormalizingFlow(nf.distributions.DiagGaussian(self.size.entries, False), layers)

    def _layer(self) -> nf.flows.Flow:
        entries, width = self.size.entries, self.size.width
        if self.size.kind == "affine-autoregressive":
            return nf.flows.MaskedAffineAutoregressive(
                entries, width, num_blocks=1, use_residual_blocks=False
            )
        layer = {
            "spline-autoregressive": nf.flows.AutoregressiveRationalQuadraticSpline,
            "spline-coupling": nf.flows.CoupledRationalQuadraticSpline,
        }[self.size.kind]
        return layer(entries, 1, width, num_bins=self.size.bins, tail_bound=BOUND)

    def log_prob(self, rows: torch.Tensor) -> torch.Tensor:
        """Log-densities of rows, in nats."""
        return self.flow.log_prob(rows)

    def sample(self, count: int) -> torch.Tensor:
        """Draws rows."""
        return self.flow.sample(count)[0]
