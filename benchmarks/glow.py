"""What depth costs a Glow: time to compile, time of a gradient, and memory.

Glow with three levels and width 128 on 16 images of 32x32x3, the gradient of the negative
log-likelihood. Times are medians of calls that alternate between the sides of a comparison.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import tyro

import vaeflow as vf


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the benchmark."""

    levels: int = 3
    """Levels of the flow."""
    width: int = 128
    """Hidden channels of the coupling networks."""
    batch_size: int = 16
    """Images in a batch."""
    image_size: int = 32
    """Height and width of an image."""
    repeats: int = 15
    """Calls of each side."""


def compile_gradient(config: Config, steps: int, **options: Any):
    """Compiles a gradient; returns it with its arguments, the seconds and the temporary bytes."""
    shape = (config.image_size, config.image_size, 3)
    flow = vf.flows.Glow(shape, config.levels, steps, config.width, **options)
    model = vf.models.FlowModel(flow, vf.models.UniformDequantizer())
    key = jax.random.key(0)
    images = jax.random.randint(key, (config.batch_size, *shape), 0, 256).astype(jnp.uint8)
    variables = jax.jit(model.init)(key, images)

    def loss(variables, images):
        return vf.losses.negative_log_likelihood(model, variables, {"image": images}, key)[0]

    lowered = jax.jit(jax.grad(loss)).lower(variables, images)
    start = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    temporaries = compiled.memory_analysis().temp_size_in_bytes
    return (compiled, (variables, images)), seconds, temporaries


def alternate(sides: dict[str, tuple[Any, tuple]], repeats: int) -> dict[str, list[float]]:
    """Calls each side in turn; the first call of each isn't counted."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for count in range(repeats + 1):
        for name, (function, arguments) in sides.items():
            start = time.perf_counter()
            jax.block_until_ready(function(*arguments))
            if count:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(numerator: list[float], denominator: list[float]) -> float:
    """Median of the ratios of neighbouring calls."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def main(config: Config) -> None:
    """Measures, and prints two tables."""
    print("| steps K | gradient | compile, s | temporaries, MB |")
    print("| --- | --- | --- | --- |")
    compiled, seconds, temporaries = {}, {}, {}
    cases = [(8, "scan"), (32, "scan"), (8, "reversible"), (16, "scan"), (16, "reversible")]
    cases += [(32, "reversible"), (8, "unrolled")]
    for steps, kind in cases:
        options = {"reversible": kind == "reversible", "scan": kind != "unrolled"}
        compiled[steps, kind], *measured = compile_gradient(config, steps, **options)
        seconds[steps, kind], temporaries[steps, kind] = measured
        print(f"| {steps} | {kind} | {measured[0]:.1f} | {measured[1] / 1e6:.1f} |", flush=True)
    for kind in ("scan", "reversible"):
        print(f"compile, {kind}: K=32 / K=8 = {seconds[32, kind] / seconds[8, kind]:.2f}")
    grown = temporaries[32, "reversible"] / temporaries[8, "reversible"]
    print(f"temporaries, reversible: K=32 / K=8 = {grown:.2f}")
    saved = temporaries[16, "reversible"] / temporaries[16, "scan"]
    print(f"temporaries, K=16: reversible / scan = {saved:.2f}")
    sides = {kind: compiled[8, kind] for kind in ("scan", "unrolled", "reversible")}
    times = alternate(sides, config.repeats)
    print("| gradient, K=8 | median, ms | over unrolled |")
    print("| --- | --- | --- |")
    for kind, values in times.items():
        print(
            f"| {kind} | {1e3 * statistics.median(values):.0f} "
            f"| {ratio(values, times['unrolled']):.2f} |"
        )


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
