"""A training step of MUNIT, discriminators and then auto-encoders, against plain torch: speed.

Both sides are given the same images of two domains and train the same networks by the same losses
with Adam at the same rate. Each is a process of its own on the same cores, and the sides are called
in turn.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import tyro

from benchmarks.munit_size import MunitSize
from benchmarks.report import machine, table
from benchmarks.sides import Side
from benchmarks.training_steps import STEP_COLUMNS, training_steps

OURS = "ours"
PEER = "torch"
COLUMNS = (*STEP_COLUMNS[:-1], "last loss of the auto-encoders")


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the benchmark."""

    size: MunitSize = dataclasses.field(default_factory=MunitSize)
    """The networks and the batch."""
    peer: bool = True
    """Whether to measure torch, which needs the extra bench."""
    calls: int = 3
    """Steps of a side in one turn."""
    repeats: int = 15
    """Turns of each side."""
    threads: int = 2
    """Cores, and so threads, of each side."""


@contextlib.contextmanager
def opened(config: Config) -> Iterator[dict[str, Side]]:
    """Starts the sides by name, ours first."""
    size = dataclasses.asdict(config.size)
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(
                Side(f"benchmarks.munit_{name}", threads=config.threads, **size)
            )
            for name in ((OURS, PEER) if config.peer else (OURS,))
        }


def main(config: Config) -> None:
    """Measures, and prints the table."""
    machine("jax", "flax", "numpy", *(("torch",) if config.peer else ()))
    with opened(config) as sides:
        rows = training_steps(sides, config.calls, config.repeats)
    size = config.size
    print(
        f"\nA training step, content {size.content_channels}, style {size.style_channels}, "
        f"discriminators {size.discriminator_channels} at {size.scales} scales, "
        f"batch {size.batch_size} of each domain"
    )
    table(COLUMNS, rows)
    print("Times ours: time of the side over ours, the median over neighbouring calls.")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
