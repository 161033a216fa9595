"""From an array to a trained flow, each library at its own defaults: seconds and likelihood.

Every side is a process of its own on the same cores, and the sides are called in turn. All are
given the same rows, standardised by those to train on, and the same rows to test on. A fit includes
compilation, but no import. flowjax and zuko are used as their own documentation does it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
from typing import Literal

import numpy as np
import tyro

from benchmarks.report import machine, table
from benchmarks.sides import Side

Library = Literal["ours", "ours-autoregressive", "flowjax", "zuko"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the benchmark."""

    data: tuple[str, ...] = ("gaussian", "moons")
    """gaussian: 2,000 rows of 6 correlated columns. moons: 2,000 points of two moons. Or
    PATH.npz#NAME, an array of rows in a NumPy archive."""
    libraries: tuple[Library, ...] = ("ours", "flowjax", "zuko")
    """Sides; flowjax and zuko, whose flows are autoregressive, need the extra bench."""
    seeds: int = 3
    """Fits of each side."""
    threads: int = 2
    """Cores, and so threads, of each side."""


def main(config: Config) -> None:
    """Prints a table for each data set."""
    machine("jax", "numpy")
    for source in config.data:
        with contextlib.ExitStack() as stack:
            sides = {
                name: stack.enter_context(_side(name, source, config.threads))
                for name in config.libraries
            }
            found = {name: [] for name in sides}
            for seed in range(config.seeds):
                for name, side in sides.items():
                    found[name].append(side("fit", seed))
            shape = next(iter(sides.values()))("shape")
        print(f"\n{source}: {shape[0]} rows of {shape[1]} columns to train on")
        table(
            ("side", "first fit, s", "later fits, s", "test log-likelihood, nats", "of each seed"),
            [_row(name, results) for name, results in found.items()],
        )


def _side(name: Library, source: str, threads: int) -> Side:
    module, _, autoregressive = name.partition("-")
    options = {"autoregressive": True} if autoregressive else {}
    return Side(f"benchmarks.fit_{module}", threads=threads, source=source, **options)


def _row(name: str, results: list[dict[str, float]]) -> tuple[str, ...]:
    seconds = [result["seconds"] for result in results]
    nats = [result["log_likelihood"] for result in results]
    later = f"{statistics.median(seconds[1:]):.1f}" if seconds[1:] else "-"
    each = ", ".join(f"{value:.3f}" for value in nats)
    return name, f"{seconds[0]:.1f}", later, f"{np.mean(nats):.3f}", each


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
