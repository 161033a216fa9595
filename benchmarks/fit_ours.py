"""Our side of the comparison of fits."""

from __future__ import annotations

import time

import jax

import vaeflow as vf
from benchmarks.fit_data import split


def make(source: str) -> Ours:
    """Makes the side; nothing is computed yet but that JAX finds its device."""
    jax.devices()
    return Ours(source)


class Ours:
    """`vaeflow.fit` of a spline flow, at the defaults of both."""

    def __init__(self, source: str):
        self.split = split(source)

    def shape(self) -> tuple[int, ...]:
        """Shape of the rows to train on."""
        return self.split.train.shape

    def fit(self, seed: int) -> dict[str, float]:
        """Trains; returns the seconds and the mean log-likelihood of the test rows in nats."""
        start = time.perf_counter()
        flow = vf.flows.NeuralSplineFlow(self.split.train.shape[1:])
        fitted = vf.fit(flow, self.split.train, seed=seed)
        seconds = time.perf_counter() - start
        return {
            "seconds": seconds,
            "log_likelihood": float(fitted.log_prob(self.split.test).mean()),
        }
