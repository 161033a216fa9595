"""Rows of the comparison of fits, the same on every side."""

from __future__ import annotations

from typing import NamedTuple

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
