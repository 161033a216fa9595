"""Variational auto-encoders of digits against pythae, plain torch and plain Flax: speed.

Every side is a process of its own on the same cores, and the sides are called in turn. All are
given the same grey images and train with Adam at the same rate, from the same number of parameters.
Ours and torch draw binary images at each step; pythae and Flax take the greys themselves, which is
less work and the same in expectation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
from collections.abc import Iterator
from typing import Literal

import tyro

from benchmarks.comparison import TIMING_COLUMNS, alternate, paired_ratio, timing_cells
from benchmarks.report import machine, table
from benchmarks.sides import Side
from benchmarks.training_steps import STEP_COLUMNS, training_steps
from benchmarks.vae_size import VaeSize, step_operations

Table = Literal["step", "flax", "importance", "epoch", "peak"]
Peer = Literal["torch", "pythae", "flax"]
OURS = "ours"
PEERS: dict[Table, tuple[Peer, ...]] = {
    "step": ("torch", "pythae"),
    "flax": ("flax",),
    "importance": ("torch",),
    "epoch": ("torch", "pythae"),
    "peak": ("torch",),
}
"""Who is compared with ours, in each table."""
WAYS = {OURS: ("scanned", "streamed"), "torch": ("loader",), "pythae": ("trainer",)}
"""Ways through an epoch on each side."""
PACKAGES = {"torch": "torch", "pythae": "pythae"}


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the benchmark."""

    only: tuple[Table, ...] = ("step", "flax", "importance", "epoch", "peak")
    """Tables to measure. step: a training step. flax: the same, against plain Flax. importance: of
    the importance-weighted bound. epoch: all images once. peak: share of what a matrix product
    reaches."""
    peers: tuple[Peer, ...] = ("torch", "pythae", "flax")
    """Sides compared with ours; the first two need the extra bench."""
    hidden: int = 512
    """Units of each hidden layer; pythae has no other than 512."""
    latents: int = 32
    """Number of latents."""
    flax_hidden: int = 500
    """Units of each hidden layer against Flax, by its example."""
    flax_latents: int = 20
    """Number of latents against Flax, by its example."""
    samples: int = 50
    """Samples of each image for the importance-weighted bound."""
    batch_size: int = 128
    """Images in a batch."""
    images: int = 60_000
    """Images in an epoch, where they are generated."""
    data: str = ""
    """NumPy archive of the array train_image; empty for generated images."""
    matrix_rows: int = 4096
    """Rows of the square matrices whose product is taken as the peak."""
    calls: int = 20
    """Steps of a side in one turn."""
    repeats: int = 15
    """Turns of each side."""
    epochs: int = 5
    """Turns of each side, for epochs."""
    threads: int = 2
    """Cores, and so threads, of each side."""

    def size(self, kind: Table) -> VaeSize:
        """Sizes of one table."""
        return VaeSize(
            self.flax_hidden if kind == "flax" else self.hidden,
            self.flax_latents if kind == "flax" else self.latents,
            self.samples if kind == "importance" else 1,
            self.batch_size,
            self.images,
            self.data,
        )


@contextlib.contextmanager
def opened(config: Config, kind: Table) -> Iterator[dict[str, Side]]:
    """Starts the sides of a table by name, ours first."""
    size = dataclasses.asdict(config.size(kind))
    names = (OURS, *(peer for peer in PEERS[kind] if peer in config.peers))
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(
                Side(f"benchmarks.vae_{name}", threads=config.threads, **size)
            )
            for name in names
        }


def described(size: VaeSize) -> str:
    """The size in words."""
    samples = f", {size.samples} samples an image" if size.samples > 1 else ""
    return f"784-{size.hidden}-{size.latents}, batch {size.batch_size}{samples}"


def steps(config: Config, kind: Table) -> None:
    """Prints times of training steps; all sides make equally many, on one batch."""
    with opened(config, kind) as sides:
        rows = training_steps(sides, config.calls, config.repeats)
        print(f"\nA training step, {described(config.size(kind))}")
        table(STEP_COLUMNS, rows)


def epoch(config: Config) -> None:
    """Prints times of an epoch."""
    size = config.size("epoch")
    with opened(config, "epoch") as sides:
        measures = {}
        for name, side in sides.items():
            side("initialize")
            for way in WAYS[name]:
                measures[f"{name}, {way}"] = lambda side=side, way=way: side("epoch", way)
        times = alternate(measures, config.epochs)
    print(f"\nAn epoch, {described(size)}")
    ours = times[f"{OURS}, {WAYS[OURS][0]}"]
    table(
        ("side", *TIMING_COLUMNS),
        ((name, *timing_cells(values, ours, 0)) for name, values in times.items()),
    )
    print(
        "scanned: one call over images on the device. streamed: a call for each batch, drawn ahead "
        "on the host. loader: a DataLoader in memory. trainer: pythae's own loop."
    )


def peak(config: Config) -> None:
    """Prints the share of a matrix product's speed that training steps reach."""
    size = config.size("peak")
    operations = step_operations(size)
    print(f"\nOperations of a step, {described(size)}: {operations / 1e9:.2f} G.")
    with opened(config, "peak") as sides:
        measures = {}
        for name, side in sides.items():
            side("initialize")
            measures[name, "step"] = lambda side=side: operations / side("run", config.calls)
            measures[name, "peak"] = lambda side=side: side("matmul", config.matrix_rows)
        results = alternate(measures, config.repeats)
    table(
        ("side", "training step, G/s", "matrix product, G/s", "share"),
        (
            (
                name,
                f"{statistics.median(results[name, 'step']) / 1e9:.1f}",
                f"{statistics.median(results[name, 'peak']) / 1e9:.1f}",
                f"{paired_ratio(results[name, 'step'], results[name, 'peak']):.2f}",
            )
            for name in sides
        ),
    )


def main(config: Config) -> None:
    """Measures, and prints the tables that are asked for."""
    packages = (PACKAGES[peer] for peer in config.peers if peer in PACKAGES)
    machine("jax", "flax", "numpy", *packages)
    for kind in ("step", "flax", "importance"):
        if kind in config.only:
            steps(config, kind)
    if "epoch" in config.only:
        epoch(config)
    if "peak" in config.only:
        peak(config)
    print("Times ours: time of the side over ours, the median over neighbouring calls.")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
