"""The flows of vectors that are measured, and the rows that every side is given."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal

import numpy as np
from jaxtyping import Float32

Kind = Literal["spline-autoregressive", "spline-coupling", "affine-autoregressive"]

BOUND = 5.0
"""Upper end of the splines' interval, and minus its lower end."""

LEARNING_RATE = 1e-3


@dataclasses.dataclass(frozen=True)
class FlowSize:
    """Sizes of a flow and of its batch."""

    kind: Kind
    """The kind of its steps."""
    entries: int = 6
    """Entries of a row."""
    steps: int = 5
    """Steps of the flow."""
    width: int = 64
    """Units of each of two hidden layers."""
    bins: int = 8
    """Bins of a spline."""
    batch_size: int = 512
    """Rows in a batch."""
    data: str = ""
    """Path of a NumPy archive with the arrays `train` and `test`; empty for generated rows."""
    seed: int = 0
    """Seed of the parameters and of the order of the rows."""

    @property
    def hidden(self) -> tuple[int, int]:
        """Sizes of the hidden layers."""
        return self.width, self.width


class Rows:
    """Standardised rows to train on and to test with, equal on every side."""

    def __init__(self, size: FlowSize):
        if size.data:
            with np.load(size.data) as archive:
                train, test = archive["train"], archive["test"]
        else:
            train, test = np.split(generated(size.entries, 20_000), [15_000])
        mean, deviation = train.mean(axis=0), train.std(axis=0)
        self.train = ((train - mean) / deviation).astype(np.float32)
        self.test = ((test - mean) / deviation).astype(np.float32)
        self.size = size

    def batches(self, count: int) -> Iterator[Float32[np.ndarray, "batch entry"]]:
        """Yields batches, drawn with replacement."""
        generator = np.random.default_rng(self.size.seed)
        for _ in range(count):
            yield self.train[generator.integers(0, len(self.train), self.size.batch_size)]

    def first(self) -> Float32[np.ndarray, "batch entry"]:
        """The batch that is used where only time matters."""
        return next(self.batches(1))


def generated(entries: int, count: int) -> Float32[np.ndarray, "row entry"]:
    """Draws rows from a bent mixture of five Gaussians."""
    generator = np.random.default_rng(0)
    means = generator.normal(scale=2.0, size=(5, entries))
    mixings = generator.normal(size=(5, entries, entries)) / np.sqrt(entries)
    component = generator.integers(0, 5, count)
    noise = generator.normal(size=(count, entries))
    rows = means[component] + np.einsum("nij,nj->ni", mixings[component], noise)
    return (rows + 0.3 * np.sin(3 * np.roll(rows, 1, axis=1))).astype(np.float32)
