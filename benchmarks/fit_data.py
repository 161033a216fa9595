"""The comparison of fits: the rows, and what every side has."""

from __future__ import annotations

import abc
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

Rows = Float32[np.ndarray, "row column"]


class Split(NamedTuple):
    """Rows to train on and to test on, standardised by the first."""

    train: Rows
    test: Rows


def split(source: str) -> Split:
    """Makes or reads the rows of a source; see `benchmarks.fit.Config`.

    A constant column is left out, and a tenth of the rows of a file are to test on.
    """
    generator = np.random.default_rng(0)
    if source == "gaussian":
        rows = generator.normal(size=(12_000, 6)) @ generator.normal(size=(6, 6))
        train, test = rows[:2000], rows[2000:]
    elif source == "moons":
        angle = generator.uniform(0, np.pi, (12_000, 1))
        side = generator.choice([-1.0, 1.0], (12_000, 1))
        moons = side * np.hstack([np.cos(angle) - 0.5, np.sin(angle) - 0.25])
        rows = 2.4 * moons + 0.2 * generator.normal(size=(12_000, 2))
        train, test = rows[:2000], rows[2000:]
    else:
        path, _, name = source.partition("#")
        with np.load(path) as archive:
            rows = archive[name].astype(np.float64)
        rows = rows[generator.permutation(len(rows))]
        count = len(rows) // 10
        train, test = rows[count:], rows[:count]
    mean, deviation = train.mean(0), train.std(0)
    kept = train.max(0) > train.min(0)
    return Split(
        *(((part - mean)[:, kept] / deviation[kept]).astype(np.float32) for part in (train, test))
    )


class FitSide(abc.ABC):
    """A side: a library that trains on the rows of a source.

    Args:
      source: See `split`.
    """

    def __init__(self, source: str):
        self.split = split(source)

    def shape(self) -> tuple[int, ...]:
        """Shape of the rows to train on."""
        return self.split.train.shape

    def fit(self, seed: int) -> dict[str, float]:
        """Trains; returns the seconds and the mean log-likelihood of the test rows in nats."""
        start = time.perf_counter()
        log_prob = self.train(self.split.train, seed)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "log_likelihood": float(log_prob(self.split.test).mean())}

    @abc.abstractmethod
    def train(self, rows: Rows, seed: int) -> Callable[[Rows], Any]:
        """Trains a flow, and returns the function that computes log-densities of rows in nats."""
