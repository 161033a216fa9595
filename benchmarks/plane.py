"""Planar flows on densities of the plane against normflows: what is reached, and the speed.

Both sides train by reverse KL with the same numbers of steps and samples, Adam with the same rates,
the same annealing and a standard normal base; each initialises as it does by itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
from typing import Literal

import tyro

from benchmarks.comparison import alternate, paired_ratio
from benchmarks.plane_size import EnergyName, PlaneSize
from benchmarks.report import machine, table
from benchmarks.sides import Side

OURS = "benchmarks.plane_ours"
PEER = "benchmarks.plane_normflows"
ENERGIES: tuple[EnergyName, ...] = ("ring", "wave", "bulging_wave", "forked_wave")


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the benchmark."""

    only: tuple[Literal["speed", "closeness"], ...] = ("speed", "closeness")
    """Tables to measure. speed: of a training step. closeness: KL(q || p) after training."""
    energies: tuple[EnergyName, ...] = ENERGIES
    """Densities for closeness; the first is that of speed."""
    steps: int = 32
    """Planar maps K."""
    batch_size: int = 256
    """Samples in a batch, for closeness."""
    speed_batch_size: int = 512
    """Samples in a batch, for speed."""
    updates: int = 5000
    """Training steps."""
    learning_rate: float = 1e-2
    """Largest learning rate."""
    seeds: int = 3
    """Number of seeds."""
    threads: int = 2
    """Cores, and so threads, of each side in speed; in closeness a side has one."""
    repeats: int = 50
    """Calls of each side."""
    peer: bool = True
    """Whether to measure normflows too, which needs the extra bench."""

    def modules(self) -> dict[str, str]:
        """Sides by name."""
        return {"ours": OURS, **({"normflows": PEER} if self.peer else {})}


def speed(config: Config) -> None:
    """Prints the time of a training step."""
    size = PlaneSize(config.energies[0], config.steps, config.speed_batch_size)
    with contextlib.ExitStack() as stack:
        measures = {}
        for name, module in config.modules().items():
            side = Side(module, threads=config.threads, **dataclasses.asdict(size))
            stack.enter_context(side)("initialize")
            measures[name] = lambda side=side: side("run", "step")
        times = alternate(measures, config.repeats)
    print(f"\nA training step, K={size.steps}, {size.batch_size} samples")
    table(
        ("side", "median, ms", "least, ms", "times ours"),
        (
            (
                name,
                f"{1e3 * statistics.median(values):.2f}",
                f"{1e3 * min(values):.2f}",
                f"{paired_ratio(values, times['ours']):.2f}",
            )
            for name, values in times.items()
        ),
    )


def closeness(config: Config) -> None:
    """Prints how close to the densities both sides come."""
    print(f"\nKL(q || p) in nats, K={config.steps}, {config.updates} updates")

    def rows():
        for energy in config.energies:
            results: dict[str, list[float]] = {name: [] for name in config.modules()}
            for seed in range(config.seeds):
                size = PlaneSize(
                    energy,
                    config.steps,
                    config.batch_size,
                    config.updates,
                    config.learning_rate,
                    seed,
                )
                with contextlib.ExitStack() as stack:
                    sides = {
                        name: stack.enter_context(
                            Side(module, threads=1, **dataclasses.asdict(size))
                        )
                        for name, module in config.modules().items()
                    }
                    constant = {"normflows": sides["ours"]("log_normalizer")}
                    for name, side in sides.items():
                        results[name].append(side("train") + constant.get(name, 0.0))
            for name, values in results.items():
                each = (f"{value:.4f}" for value in values)
                yield energy.replace("_", " "), name, *each, f"{statistics.mean(values):.4f}"

    table(("density", "side", *(f"seed {seed}" for seed in range(config.seeds)), "mean"), rows())


def main(config: Config) -> None:
    """Measures, and prints the tables that are asked for."""
    machine("jax", "flax", "numpy", *(("torch", "normflows") if config.peer else ()))
    if "speed" in config.only:
        speed(config)
    if "closeness" in config.only:
        closeness(config)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
