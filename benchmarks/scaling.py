"""How a training step grows with its sizes and with devices, and what a TPU slice would do.

Each case is a process of its own. Time, temporaries and time to compile are fitted by a power of
each size, the other sizes being kept.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator
from typing import Literal

import tyro

from benchmarks.comparison import slope
from benchmarks.report import machine, table
from benchmarks.sides import Side
from benchmarks.size import Size
from benchmarks.tpu_slice import print_slices

Question = Literal["sizes", "devices", "paper"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the benchmark."""

    only: tuple[Question, ...] = ("sizes", "devices", "paper")
    """Questions to answer. sizes: growth with batch, width, depth and image. devices: what dividing
    a batch over devices costs. paper: what a slice of TPU chips would do."""
    base: Size = dataclasses.field(default_factory=lambda: Size(steps=8, width=64))
    """Sizes that are kept while one of them varies."""
    batch_size: tuple[int, ...] = (8, 16, 32, 64)
    """Images in a batch."""
    width: tuple[int, ...] = (32, 64, 128, 256)
    """Hidden channels."""
    steps: tuple[int, ...] = (4, 8, 16, 32)
    """Steps K of each level."""
    image_size: tuple[int, ...] = (16, 32, 64)
    """Height and width of an image."""
    devices: tuple[int, ...] = (1, 2, 4, 8)
    """Devices that the batch is divided over, all made of the same cores."""
    mode: Literal["remat", "scan", "reversible"] = "remat"
    """How to backpropagate."""
    threads: int = 2
    """Cores of each process."""
    repeats: int = 7
    """Training steps that count, after one that doesn't."""


def measured(side: Side, repeats: int) -> dict[str, float]:
    """Median milliseconds of a step, megabytes of temporaries and seconds to compile."""
    side("initialize")
    compiled = side("compile", "step")
    times = [side("run", "step") for _ in range(repeats + 1)][1:]
    return {
        "time": 1e3 * statistics.median(times),
        "temporaries": compiled["temporaries"] / 1e6,
        "compile": compiled["seconds"],
    }


def sizes(config: Config) -> None:
    """Prints figures for each size, and the exponents that fit them."""
    exponents = []
    known: dict[Size, dict[str, float]] = {}

    def rows() -> Iterator[tuple]:
        for name in ("batch_size", "width", "steps", "image_size"):
            values = getattr(config, name)
            results = []
            for value in values:
                size = dataclasses.replace(config.base, **{name: value})
                if size not in known:
                    options = dataclasses.asdict(size)
                    with Side(
                        "benchmarks.ours", threads=config.threads, mode=config.mode, **options
                    ) as side:
                        known[size] = measured(side, config.repeats)
                results.append(known[size])
                yield name, value, *(f"{number:.1f}" for number in known[size].values())
            if len(values) > 1:
                fits = [slope(values, [row[key] for row in results]) for key in results[0]]
                exponents.append((name, *(f"{fit:.2f}" for fit in fits)))

    kept = ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(config.base).items())
    print(f"\nTraining steps, {config.mode}; what doesn't vary: {kept}.")
    table(("what varies", "value", "step, ms", "temporaries, MB", "compile, s"), rows())
    print("Exponents p of the power laws y = c x^p that fit best:")
    table(("x", "time of a step", "temporaries", "compile"), exponents)


def devices(config: Config) -> None:
    """Prints what it costs to divide one batch over more devices of the same cores."""

    def rows() -> Iterator[tuple]:
        first = None
        for count in config.devices:
            options = dataclasses.asdict(config.base)
            environment = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}
            with Side(
                "benchmarks.sharded",
                threads=config.threads,
                environment=environment,
                mode=config.mode,
                **options,
            ) as side:
                results = measured(side, config.repeats)
            first = results["time"] if first is None else first
            yield count, *(f"{v:.1f}" for v in results.values()), f"{results['time'] / first:.2f}"

    print(
        f"\nOne batch of {config.base.batch_size} images divided over devices that share "
        f"{config.threads} cores: this shows overhead, and can't show a speed-up."
    )
    head = ("devices", "step, ms", "temporaries of a device, MB", "compile, s", "time over first")
    table(head, rows())


def main(config: Config) -> None:
    """Measures, and prints the tables that are asked for."""
    machine("jax", "flax", "numpy")
    if "sizes" in config.only:
        sizes(config)
    if "devices" in config.only:
        devices(config)
    if "paper" in config.only:
        print_slices()


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
