"""Glow against normflows' Glow, what depth costs, the share of the peak, and memory.

Every side is a process of its own on the same cores, and the sides are called in turn. All are
given the same float32 images, dequantized beforehand, and train with Adam at the same rate.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import tempfile
from collections.abc import Iterator
from typing import Any, Literal

import tyro

from benchmarks.comparison import alternate, paired_ratio
from benchmarks.operations import glow_products, training_operations
from benchmarks.report import machine, table
from benchmarks.sides import Side
from benchmarks.size import Size

Table = Literal["peer", "depth", "peak", "memory"]
Mode = Literal["remat", "scan", "reversible"]
PEER = "benchmarks.peer_normflows"
OURS = "benchmarks.ours"
MODES = {
    "remat": "ours, remat (recommended)",
    "scan": "ours, plain scan",
    "reversible": "ours, reversible",
}
STEPS_IN_MEMORY = 3


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the benchmark."""

    only: tuple[Table, ...] = ("peer", "depth", "peak", "memory")
    """Tables to measure. peer: speed against normflows. depth: what more steps cost. peak: share of
    what a matrix product reaches. memory: peak of the whole process."""
    modes: tuple[Mode, ...] = ("remat", "scan", "reversible")
    """How to backpropagate."""
    levels: int = 3
    """Levels of the flow."""
    depths: tuple[int, ...] = (8, 16)
    """Steps of each level, for peer; the first is that of peak."""
    compiled_depths: tuple[int, ...] = (8, 16, 32)
    """Steps of each level, for depth; the first is also compiled unrolled."""
    memory_depth: int = 16
    """Steps of each level, for memory."""
    width: int = 128
    """Hidden channels of the coupling networks."""
    memory_width: int = 256
    """Hidden channels, for memory."""
    batch_size: int = 16
    """Images in a batch."""
    image_size: int = 32
    """Height and width of an image."""
    matrix_rows: int = 4096
    """Rows of the square matrices whose product is taken as the peak."""
    threads: int = 2
    """Cores, and so threads, of each side."""
    repeats: int = 15
    """Calls of each side."""
    peer: bool = True
    """Whether to measure normflows too, which needs the extra bench."""

    def size(self, steps: int, width: int | None = None) -> dict[str, int]:
        """Sizes of one side."""
        width = self.width if width is None else width
        return dataclasses.asdict(Size(self.levels, steps, width, self.batch_size, self.image_size))


@contextlib.contextmanager
def opened(config: Config, steps: int) -> Iterator[dict[str, Side]]:
    """Starts and initialises the sides by label, the peer first."""
    size, threads = config.size(steps), config.threads
    with contextlib.ExitStack() as stack:
        sides = {}
        if config.peer:
            sides["normflows"] = stack.enter_context(Side(PEER, threads=threads, **size))
        for mode in config.modes:
            side = Side(OURS, threads=threads, mode=mode, **size)
            sides[MODES[mode]] = stack.enter_context(side)
        yield sides


def timed(sides: dict[str, Side], work: str, repeats: int) -> dict[str, list[float]]:
    """Seconds of one kind of work on each side, called in turn."""
    measures = {label: lambda side=side: side("run", work) for label, side in sides.items()}
    return alternate(measures, repeats)


def compare(config: Config, steps: int) -> None:
    """Prints speed against the peer at one depth."""
    with opened(config, steps) as sides:
        print(f"\nK={steps}. Before the first update:")
        rows = []
        for label, side in sides.items():
            results = side("initialize")
            cells = (results["parameters"], " ".join(results["dtypes"]), f"{side('loss'):.4f}")
            rows.append((label, *cells))
        table(("side", "parameters", "of type", "loss, nats/dim"), rows)
        first = MODES[config.modes[0]]
        shared = {label: side for label, side in sides.items() if label in ("normflows", first)}
        rows = []
        for work, name in (("step", "step"), ("log_prob", "log_prob"), ("sample", "sampling")):
            # Densities and samples are the same program in all of our modes.
            times = timed(sides if work == "step" else shared, work, config.repeats)
            for label, values in times.items():
                ratio = paired_ratio(times.get("normflows", values), values)
                shown = label if work == "step" or label == "normflows" else "ours"
                milliseconds = (1e3 * statistics.median(values), 1e3 * min(values))
                rows.append((name, shown, *(f"{v:.0f}" for v in milliseconds), f"{ratio:.2f}"))
        head = (
            f"K={steps}, {config.batch_size} images",
            "side",
            "median, ms",
            "least, ms",
            "speed",
        )
        table(head, rows)
    print(
        "Speed: time of normflows over time of the side, the median over neighbouring calls. Its "
        "threads wait for each other where other work shares the cores, so keep the machine quiet."
    )


def depth(config: Config) -> None:
    """Prints what the depth costs."""
    shallow, deepest = config.compiled_depths[0], config.compiled_depths[-1]
    compiled: dict[tuple[int, str], dict[str, float]] = {}

    def rows(stack: contextlib.ExitStack, sides: dict[str, Side]) -> Iterator[tuple]:
        cases = [(steps, mode) for mode in config.modes for steps in config.compiled_depths]
        for steps, mode in [*cases, (shallow, "unrolled")]:
            size, threads = config.size(steps), config.threads
            side = stack.enter_context(Side(OURS, threads=threads, mode=mode, **size))
            side("initialize")
            results = compiled[steps, mode] = side("compile", "gradient")
            yield steps, mode, f"{results['seconds']:.1f}", f"{results['temporaries'] / 1e6:.1f}"
            if steps == shallow:
                sides[mode] = side

    with contextlib.ExitStack() as stack:
        sides: dict[str, Side] = {}
        head = ("steps K", "gradient", "compile, s", "temporaries, MB")
        table(head, rows(stack, sides))
        for kind, key in (("compile", "seconds"), ("temporaries", "temporaries")):
            for mode in config.modes:
                grown = compiled[deepest, mode][key] / compiled[shallow, mode][key]
                print(f"{kind}, {mode}: K={deepest} / K={shallow} = {grown:.2f}")
        for (steps, mode), results in compiled.items():
            if (steps, "scan") in compiled and mode not in ("scan", "unrolled"):
                share = results["temporaries"] / compiled[steps, "scan"]["temporaries"]
                print(f"temporaries, K={steps}: {mode} / scan = {share:.2f}")
        times = timed(sides, "gradient", config.repeats)
    head = (f"gradient, K={shallow}", "median, ms", "over unrolled")
    table(
        head,
        (
            (mode, f"{1e3 * statistics.median(values):.0f}", f"{ratio:.2f}")
            for mode, values in times.items()
            for ratio in [paired_ratio(values, times["unrolled"])]
        ),
    )


def peak(config: Config) -> None:
    """Prints the share of a matrix product's speed that training steps reach."""
    steps = config.depths[0]
    size = Size(**config.size(steps))
    products = glow_products(size.shape, size.levels, size.steps, size.width)
    operations = size.batch_size * training_operations(products)
    print(f"\nOperations of a step, K={steps}: {operations / 1e9:.1f} G, nothing counted twice.")
    with opened(config, steps) as sides:
        measures = {}
        for label, side in sides.items():
            side("initialize")
            measures[label, "step"] = lambda side=side: operations / side("run", "step")
            measures[label, "peak"] = lambda side=side: side("matmul", config.matrix_rows)
        results = alternate(measures, config.repeats)
    table(
        ("side", "training step, G/s", "matrix product, G/s", "share"),
        (
            (
                label,
                f"{statistics.median(results[label, 'step']) / 1e9:.0f}",
                f"{statistics.median(results[label, 'peak']) / 1e9:.0f}",
                f"{paired_ratio(results[label, 'step'], results[label, 'peak']):.2f}",
            )
            for label in sides
        ),
    )


def occupied(config: Config, module: str, environment: dict[str, str], **options: Any) -> dict:
    """Memory of a fresh process in bytes, at each stage of its life."""
    size = config.size(config.memory_depth, config.memory_width)
    side = Side(module, threads=config.threads, environment=environment, **options, **size)
    with side:
        idle = side("memory")["resident"]
        side("initialize")
        if module == OURS:
            side("compile", "step")
        before = side("memory")
        side("forget_peak")
        for _ in range(STEPS_IN_MEMORY):
            side("run", "step")
        steps = side("memory")["peak"]
    return {
        "idle": idle,
        "start": before["peak"],
        "settled": before["resident"],
        "steps": steps,
        "all": max(before["peak"], steps),
    }


def memory(config: Config) -> None:
    """Prints the memory of whole processes that train."""
    cases: dict[str, tuple] = {"normflows": (PEER, {}, {})} if config.peer else {}
    cases |= {
        label: (OURS, {}, {"mode": mode})
        for label, mode in ((MODES[mode], mode) for mode in config.modes)
    }
    with tempfile.TemporaryDirectory() as cache:
        environment = {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        occupied(config, OURS, environment, mode="reversible")
        case = (OURS, environment, {"mode": "reversible"})
        cases["ours, reversible, compiled before"] = case
        results = {}

        def rows() -> Iterator[tuple]:
            for label, (module, variables, options) in cases.items():
                results[label] = occupied(config, module, variables, **options)
                yield label, *(f"{value / 2**20:.0f}" for value in results[label].values())

        print(
            f"\nResident MiB of a process of its own, K={config.memory_depth}, "
            f"width {config.memory_width}, {STEPS_IN_MEMORY} training steps:"
        )
        head = ("side", "imported, idle", "most until compiled", "then resident")
        table((*head, "most during steps", "most in all"), rows())
    for label, ours in results.items():
        if config.peer and label != "normflows":
            theirs = results["normflows"]
            during, whole = (theirs[name] / ours[name] for name in ("steps", "all"))
            above = (theirs["all"] - theirs["idle"]) / (ours["steps"] - ours["settled"])
            print(
                f"normflows / {label}: {whole:.2f} in all, {during:.2f} during steps, "
                f"{above:.2f} in what is added: theirs beyond idle, ours beyond compiled"
            )


def main(config: Config) -> None:
    """Measures, and prints the tables that are asked for."""
    machine("jax", "flax", "numpy", *(("torch", "normflows") if config.peer else ()))
    print(
        f"Glow with {config.levels} levels and width {config.width}, {config.batch_size} images "
        f"of {config.image_size}x{config.image_size}x3, {config.threads} threads a side."
    )
    if "peer" in config.only:
        for steps in config.depths:
            compare(config, steps)
    if "depth" in config.only:
        depth(config)
    if "peak" in config.only:
        peak(config)
    if "memory" in config.only:
        memory(config)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
