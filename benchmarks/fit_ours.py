"""Our side of the comparison of fits."""

from __future__ import annotations

import jax

import vaeflow as vf
from benchmarks.fit_data import FitSide


def make(source: str, autoregressive: bool = False) -> Ours:
    """Makes the side; nothing is computed yet but that JAX finds its device."""
    jax.devices()
    return Ours(source, autoregressive)


class Ours(FitSide):
    """`vaeflow.fit` of a spline flow, at the defaults of both; of couplings unless told."""

    def __init__(self, source: str, autoregressive: bool):
        super().__init__(source)
        self.autoregressive = autoregressive

    def train(self, rows, seed):
        """Trains; see `FitSide`."""
        flow = vf.flows.NeuralSplineFlow(rows.shape[1:], autoregressive=self.autoregressive)
        return vf.fit(flow, rows, seed=seed).log_prob
