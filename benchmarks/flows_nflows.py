"""nflows' side of the comparison of flows of vectors."""

from __future__ import annotations

from typing import Any

import torch
from nflows import distributions, flows, transforms
from nflows.nn import nets

from benchmarks.flow_size import BOUND, FlowSize
from benchmarks.flows_torch import TorchSide


def make(**size: Any) -> Nflows:
    """Makes the side; nothing is computed yet."""
    return Nflows(FlowSize(**size))


class Nflows(TorchSide):
    """nflows' transforms, each followed by a reversal of the entries.

    Networks of couplings have one residual block of two layers after the first.
    """

    def build(self) -> torch.nn.Module:
        """Builds the flow."""
        parts = []
        for _ in range(self.size.steps):
            parts += [self._transform(), transforms.ReversePermutation(self.size.entries)]
        base = distributions.StandardNormal([self.size.entries])
        return flows.Flow(transforms.CompositeTransform(parts), base)

    def _transform(self) -> transforms.Transform:
        entries, width = self.size.entries, self.size.width
        splines = {"num_bins": self.size.bins, "tails": "linear", "tail_bound": BOUND}
        # One layer, and a block of one more.
        masked = {"num_blocks": 1, "use_residual_blocks": False}
        if self.size.kind == "affine-autoregressive":
            return transforms.MaskedAffineAutoregressiveTransform(entries, width, **masked)
        if self.size.kind == "spline-autoregressive":
            return transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
                entries, width, **masked, **splines
            )
        return transforms.PiecewiseRationalQuadraticCouplingTransform(
            torch.arange(entries) >= entries // 2,
            lambda inputs, outputs: nets.ResidualNet(inputs, outputs, width, num_blocks=1),
            **splines,
        )

    def log_prob(self, rows: torch.Tensor) -> torch.Tensor:
        """Log-densities of rows, in nats."""
        return self.flow.log_prob(rows)

    def sample(self, count: int) -> torch.Tensor:
        """Draws rows."""
        return self.flow.sample(count)
