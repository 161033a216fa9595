"""Vector quantisation against vector-quantize-pytorch, and samples of priors over codes: speed.

Every side is a process of its own on the same cores, and the sides are called in turn. Quantizers
start from the same codes and are given the same float32 vectors. Samples are drawn from one model
in two ways.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal

import tyro

from benchmarks.comparison import TIMING_COLUMNS, alternate, timing_cells
from benchmarks.report import machine, table
from benchmarks.sides import Side
from benchmarks.training_steps import STEP_COLUMNS, training_steps
from benchmarks.vq_size import Kind, Network, PriorSize, QuantizerSize, VqStepSize, Way

Table = Literal["quantize", "sampling", "step"]
OURS = "ours"
PEER = "torch"
KINDS: tuple[tuple[Kind, int], ...] = (
    ("average", 512),
    ("average", 8192),
    ("gradient", 512),
    ("rotation", 512),
    ("cosine", 512),
    ("residual", 512),
    ("finite-scalar", 512),
    ("lookup-free", 512),
    ("gumbel", 512),
)
"""Quantizers, and their codes."""
WITHOUT_PEER: tuple[Kind, ...] = ("gumbel",)
WAYS: tuple[Way, ...] = ("incremental", "naive")


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the benchmark."""

    only: tuple[Table, ...] = ("quantize", "sampling", "step")
    """Tables to measure. quantize: forward and backward in training. sampling: of priors over
    codes. step: a training step of an auto-encoder of digits."""
    peer: bool = True
    """Whether to measure vector-quantize-pytorch, which needs the extra bench."""
    kinds: tuple[tuple[Kind, int], ...] = KINDS
    """Quantizers, and their codes."""
    maps: int = 64
    """Maps in a batch of vectors."""
    map_side: int = 8
    """Height and width of a map of vectors."""
    vector: int = 64
    """Channels of a vector."""
    networks: tuple[Network, ...] = ("PixelSNAIL", "GatedPixelCNN")
    """Networks of the priors."""
    sides: tuple[int, ...] = (7, 14)
    """Heights and widths of the maps drawn from priors."""
    codes: int = 512
    """Number of codes of the priors."""
    channels: int = 64
    """Channels of each layer of the priors."""
    count: int = 16
    """Maps drawn at a time."""
    step: VqStepSize = dataclasses.field(default_factory=VqStepSize)
    """The auto-encoder."""
    calls: int = 5
    """Calls of a quantizer, or steps, in one turn."""
    repeats: int = 15
    """Turns of each side."""
    draws: int = 5
    """Turns of each way to draw samples."""
    threads: int = 2
    """Cores, and so threads, of each side."""


@contextlib.contextmanager
def opened(
    config: Config, module: str, size: QuantizerSize | VqStepSize, peer: bool = True
) -> Iterator[dict[str, Side]]:
    """Starts the sides by name, ours first."""
    names = (OURS, PEER) if config.peer and peer else (OURS,)
    options = dataclasses.asdict(size)
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(
                Side(f"benchmarks.{module}_{name}", threads=config.threads, **options)
            )
            for name in names
        }


def quantized(config: Config) -> Iterator[Sequence[object]]:
    """Measures each quantizer; all sides make equally many calls."""
    for kind, codes in config.kinds:
        size = QuantizerSize(kind, codes, config.maps, config.map_side, config.vector)
        with opened(config, "vq", size, kind not in WITHOUT_PEER) as sides:
            for side in sides.values():
                side("initialize")
            first = {name: side("run") for name, side in sides.items()}
            measures = {
                name: lambda side=side: side("run", config.calls) for name, side in sides.items()
            }
            times = alternate(measures, config.repeats)
            for name, values in times.items():
                losses = (f"{loss:.4f}" for loss in sides[name]("first_and_last_loss"))
                cells = timing_cells(values, times[OURS], 2)
                yield kind, codes, name, f"{first[name]:.2f}", *cells, *losses


def sampled(config: Config) -> Iterator[Sequence[object]]:
    """Measures both ways to draw from each prior, in one process."""
    for network in config.networks:
        for side in config.sides:
            size = PriorSize(network, side, config.codes, config.channels, count=config.count)
            with Side(
                "benchmarks.vq_sampling", threads=config.threads, **dataclasses.asdict(size)
            ) as prior:
                parameters = prior("initialize")
                measures = {way: lambda way=way: prior("run", way) for way in WAYS}
                times = alternate(measures, config.draws)
                agreement = prior("agreement")
            for way, values in times.items():
                cells = timing_cells(values, times[WAYS[0]], 1)
                yield (
                    network,
                    f"{side}x{side}",
                    parameters,
                    way,
                    *cells,
                    f"{agreement['equal']:.4f}",
                    f"{agreement['difference']:.1e}",
                    f"{agreement['spread']:.2f}",
                )


def main(config: Config) -> None:
    """Measures, and prints the tables that are asked for."""
    packages = ("torch", "vector-quantize-pytorch") if config.peer else ()
    machine("jax", "flax", "numpy", *packages)
    if "quantize" in config.only:
        size = QuantizerSize(maps=config.maps, side=config.map_side, vector=config.vector)
        print(f"\nForward and backward, {size.vectors} vectors of {size.vector}")
        head = ("quantizer", "codes", "side", "first call, s", *TIMING_COLUMNS)
        table((*head, "first loss", "last loss"), quantized(config))
        print(
            "Codes restart below the same use, at random vectors of the batch. finite-scalar and "
            "lookup-free take vectors of 3 and of log2(codes) entries."
        )
    if "sampling" in config.only:
        print(f"\nSampling {config.count} maps of {config.codes} codes")
        table(
            (
                "network",
                "map",
                "parameters",
                "way",
                *TIMING_COLUMNS,
                "equal codes",
                "largest difference of logits",
                "spread of logits",
            ),
            sampled(config),
        )
        print("incremental is ours. naive: a pass over whole maps for each position.")
    if "step" in config.only:
        size = config.step
        with opened(config, "vq_step", size) as sides:
            rows = training_steps(sides, config.calls, config.repeats)
        print(
            f"\nA training step, channels {size.channels}, {size.blocks} residual blocks, "
            f"{size.codes} codes of {size.latents}, batch {size.batch_size}"
        )
        table(STEP_COLUMNS, rows)
    print("Times ours: time of the side over ours, the median over neighbouring calls.")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
