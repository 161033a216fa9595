"""Flows of vectors against zuko, flowjax, nflows and normflows: speed, and what is learned.

Every side is a process of its own on the same cores, and the sides are called in turn. All are
given the same float32 rows, standardised beforehand, in the same order, and train with Adam at the
same rate. Flows have the same steps, hidden layers and bins; what differs is said below the tables.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import tyro

from benchmarks.comparison import alternate, paired_ratio
from benchmarks.flow_size import FlowSize, Kind
from benchmarks.report import machine, table
from benchmarks.sides import Side

Table = Literal["speed", "likelihood"]
Library = Literal["zuko", "flowjax", "nflows", "normflows"]
OURS = "ours"
WORKS = {"step": "step", "log_prob": "log_prob", "sample": "sampling"}
CALLS = 5
"""Calls of a side in one turn."""
KINDS: dict[Kind, dict[str, int]] = {
    "spline-autoregressive": {"entries": 6, "width": 64},
    "spline-coupling": {"entries": 6, "width": 64},
    "affine-autoregressive": {"entries": 43, "width": 100},
}
"""Sizes of each kind of flow, where no other is asked for."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the benchmark."""

    only: tuple[Table, ...] = ("speed", "likelihood")
    """Tables to measure. speed: times, and that of the first step, which compiles. likelihood: of
    test rows after the same steps."""
    kinds: tuple[Kind, ...] = tuple(KINDS)
    """Kinds of flow."""
    libraries: tuple[Library, ...] = ("zuko", "flowjax", "nflows", "normflows")
    """Libraries compared with ours, which need the extra bench."""
    entries: int | None = None
    """Entries of a row; None for those of the kind."""
    width: int | None = None
    """Units of each of two hidden layers; None for those of the kind."""
    steps: int = 5
    """Steps of a flow."""
    bins: int = 8
    """Bins of a spline."""
    batch_size: int = 512
    """Rows in a batch."""
    data: str = ""
    """NumPy archive of the arrays train and test; empty for generated rows."""
    updates: int = 1000
    """Training steps before the likelihood is taken."""
    seeds: int = 3
    """Number of seeds of the likelihood."""
    threads: int = 2
    """Cores, and so threads, of each side."""
    repeats: int = 15
    """Turns of each side, of several calls each."""

    def size(self, kind: Kind, seed: int = 0) -> FlowSize:
        """Sizes of one flow."""
        given = {"entries": self.entries, "width": self.width}
        sizes = KINDS[kind] | {name: value for name, value in given.items() if value is not None}
        return FlowSize(
            kind,
            steps=self.steps,
            bins=self.bins,
            batch_size=self.batch_size,
            data=self.data,
            seed=seed,
            **sizes,
        )


@contextlib.contextmanager
def opened(libraries: Sequence[Library], threads: int, size: FlowSize) -> Iterator[dict[str, Side]]:
    """Starts the sides by name, ours first."""
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(
                Side(f"benchmarks.flows_{name}", threads=threads, **dataclasses.asdict(size))
            )
            for name in (OURS, *libraries)
        }


def described(size: FlowSize) -> str:
    """The size in words."""
    return (
        f"{size.kind}, {size.entries} entries, {size.steps} steps, hidden "
        f"{size.width}x{size.width}, batch {size.batch_size}"
    )


def timed(sides: Mapping[str, Side], work: str, repeats: int) -> dict[str, list[float]]:
    """Seconds of one call on each side, each of whose turns is several calls in a row.

    As in training, which reads results late: the first call after another process's turn finds the
    caches cold, and JAX hands out the next call while the last is computed.
    """
    measures = {name: lambda side=side: side("run", work, CALLS) for name, side in sides.items()}
    return alternate(measures, repeats)


def speed(config: Config, kind: Kind) -> None:
    """Prints times of one kind of flow."""
    size = config.size(kind)
    with opened(config.libraries, config.threads, size) as sides:
        results = {name: side("initialize") for name, side in sides.items()}
        first = {name: {work: side("run", work) for work in WORKS} for name, side in sides.items()}
        print(f"\n{described(size)}")
        rows = []
        for work, label in WORKS.items():
            times = timed(sides, work, config.repeats)
            for name, values in times.items():
                parameters = results[name]["parameters"]
                milliseconds = (1e3 * statistics.median(values), 1e3 * min(values))
                ratio = paired_ratio(values, times[OURS])
                cells = (*(f"{value:.2f}" for value in milliseconds), f"{ratio:.2f}")
                rows.append((label, name, parameters, f"{first[name][work]:.2f}", *cells))
        columns = ("first call, s", "median, ms", "least, ms", "times ours")
        table(("work", "side", "parameters", *columns), rows)
    print("Times ours: time of the side over ours, the median over neighbouring calls.")


def learned(
    libraries: Sequence[Library], threads: int, sizes: Sequence[FlowSize], updates: int
) -> Iterator[tuple[str, ...]]:
    """Trains every side on each size; yields its name, its likelihoods, their mean, and ours less
    that mean."""
    results: dict[str, list[float]] = {name: [] for name in (OURS, *libraries)}
    for size in sizes:
        with opened(libraries, threads, size) as sides:
            for name, side in sides.items():
                results[name].append(side("train", updates))
    means = {name: statistics.mean(values) for name, values in results.items()}
    for name, values in results.items():
        each = (f"{value:.3f}" for value in values)
        yield name, *each, f"{means[name]:.3f}", f"{means[OURS] - means[name]:+.3f}"


def likelihood(config: Config, kind: Kind) -> None:
    """Prints what one kind of flow learns."""
    sizes = [config.size(kind, seed) for seed in range(config.seeds)]
    print(f"\n{described(sizes[0])}, {config.updates} updates")
    table(
        ("side", *(f"seed {size.seed}" for size in sizes), "mean, nats", "above it, ours"),
        learned(config.libraries, config.threads, sizes, config.updates),
    )
    print("Mean log-likelihood of test rows, standardised as they are trained on.")


def main(config: Config) -> None:
    """Measures, and prints the tables that are asked for."""
    machine("jax", "flax", "numpy", *config.libraries)
    for kind in config.kinds:
        if "speed" in config.only:
            speed(config, kind)
        if "likelihood" in config.only:
            likelihood(config, kind)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
