"""Our side of the comparison of fits."""

from __future__ import annotations

import jax

import vaeflow as vf
from benchmarks.fit_data import FitSide


def make(source: str) -> Ours:
    """Makes the side; nothing is computed yet but that JAX finds its device."""
    jax.devices()
    return Ours(source)


class Ours(FitSide):
    """`vaeflow.fit` of a spline flow, at the defaults of both."""

    def train(self, rows, seed):
        """Trains; see `FitSide`."""
        return vf.fit(vf.flows.NeuralSplineFlow(rows.shape[1:]), rows, seed=seed).log_prob
