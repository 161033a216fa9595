"""Autoregressive spline flows on densities of the plane against zuko and flowjax: what is learned.

Every side is a process of its own. All are given the same float32 points, standardised beforehand,
in the same order, and train equally many steps of Adam at the same rate; flows have the same steps,
hidden layers and bins.
"""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
from typing import Literal

import jax
import numpy as np
import tyro
from jaxtyping import Float32

from benchmarks.flow_size import FlowSize
from benchmarks.flows import described, learned
from benchmarks.report import machine, table
from vaeflow import distributions

Density = Literal["checkerboard", "two_moons", "pinwheel", "eight_gaussians", "two_spirals"]
DENSITIES: tuple[Density, ...] = (
    "checkerboard",
    "two_moons",
    "pinwheel",
    "eight_gaussians",
    "two_spirals",
)
TRAIN = 100_000
"""Points to train on."""
TEST = 20_000
"""Points to test with."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the benchmark."""

    densities: tuple[Density, ...] = DENSITIES
    """Densities to learn."""
    libraries: tuple[Literal["zuko", "flowjax"], ...] = ("zuko", "flowjax")
    """Libraries compared with ours, which need the extra bench."""
    steps: int = 5
    """Steps of a flow."""
    width: int = 64
    """Units of each of two hidden layers."""
    bins: int = 8
    """Bins of a spline."""
    batch_size: int = 512
    """Points in a batch."""
    updates: int = 2000
    """Training steps."""
    seeds: int = 3
    """Number of seeds."""
    threads: int = 1
    """Cores, and so threads, of each side."""

    def size(self, data: str, seed: int) -> FlowSize:
        """Sizes of one flow."""
        return FlowSize(
            "spline-autoregressive",
            2,
            self.steps,
            self.width,
            self.bins,
            self.batch_size,
            data,
            seed,
        )


def points(density: Density, count: int) -> Float32[np.ndarray, "point 2"]:
    """Draws points."""
    key = jax.random.key(0)
    named = getattr(distributions.toy, density)
    if density in ("checkerboard", "eight_gaussians"):
        return np.asarray(named().sample(seed=key, sample_shape=(count,)))
    return np.asarray(named(key, (count,)))


def main(config: Config) -> None:
    """Measures, and prints the table."""
    machine("jax", "flax", "numpy", *config.libraries)
    print(f"\n{described(config.size('', 0))}, {config.updates} updates")
    columns = (*(f"seed {seed}" for seed in range(config.seeds)), "mean, nats", "above it, ours")
    with tempfile.TemporaryDirectory() as folder:

        def rows():
            for density in config.densities:
                path = pathlib.Path(folder) / f"{density}.npz"
                train, test = np.split(points(density, TRAIN + TEST), [TRAIN])
                np.savez(path, train=train, test=test)
                sizes = [config.size(str(path), seed) for seed in range(config.seeds)]
                for row in learned(config.libraries, config.threads, sizes, config.updates):
                    yield density.replace("_", " "), *row

        table(("density", "side", *columns), rows())
    print("Mean log-likelihood of test points, standardised as they are trained on.")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
