"""Steps of the large presets on a slice of TPU chips: a model on paper, not a measurement.

Chips divide the batch and hold all parameters. A step takes the longer of computing and of moving
activations to and from memory, and then, nothing overlapping, averages float32 gradients around a
ring. Peaks and bandwidths are the manufacturer's (docs.cloud.google.com/tpu/docs/v4, /v5e, /v5p). A
link's is, in one direction, half of the bandwidth of a chip to all others divided by its ports: 400
GB/s and 4 for v5e, 1200 GB/s and 6 for v5p. v4's follows from its all-reduce bandwidth, 1.1 PB/s
for 4,096 chips of 6 ports. `SHARE` and `HOP_SECONDS` are assumptions.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

from benchmarks.operations import TRAINING_PASSES, Product, forward_operations, glow_products
from benchmarks.report import table

SHARE = 0.4
"""Share of the peak that convolutions of this kind reach; assumed."""
HOP_SECONDS = 1e-6
"""Latency of one message between neighbours; assumed."""
REVERSIBLE_PASSES = TRAINING_PASSES + 1
"""Inverting evaluates each network once more; what the gradient needs of it is shared."""
CHIPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
IMAGES_OF_A_CHIP = 8


class Chip(NamedTuple):
    """Public figures of a chip.

    Attributes:
      peak: Operations per second in bfloat16.
      memory: Bytes of memory.
      bandwidth: Bytes per second to and from memory.
      link: Bytes per second that one link to a neighbour carries in one direction.
    """

    peak: float
    memory: float
    bandwidth: float
    link: float


TPUS = {
    "v4": Chip(275e12, 32 * 2**30, 1200e9, 45e9),
    "v5e": Chip(197e12, 16 * 2**30, 819e9, 50e9),
    "v5p": Chip(459e12, 95 * 2**30, 2765e9, 100e9),
}


@dataclasses.dataclass(frozen=True)
class Job:
    """The work of one training step.

    Attributes:
      name: The preset's.
      batch_size: Images in the global batch.
      parameters: Number of parameters.
      operations: Floating-point operations for one image, what is computed again included.
      traffic: Bytes of activations of one image that pass through memory.
    """

    name: str
    batch_size: int
    parameters: int
    operations: float
    traffic: float


def ring_bytes(chips: int, size: float) -> float:
    """Bytes that each chip sends to average `size` bytes around a ring: 2 (n - 1) / n of them."""
    return 2 * (chips - 1) / chips * size


def ring_seconds(chips: int, size: float, chip: Chip) -> float:
    """Seconds of that average on one link in one direction, the latency of 2 (n - 1) hops added."""
    return ring_bytes(chips, size) / chip.link + 2 * (chips - 1) * HOP_SECONDS


def compute_seconds(job: Job, images: float, chip: Chip) -> float:
    """Seconds that a chip takes for the gradient of some images."""
    return images * max(job.operations / (chip.peak * SHARE), job.traffic / chip.bandwidth)


def most_chips(job: Job, chip: Chip) -> int:
    """Largest power of two of chips that share the batch evenly and mostly compute."""
    chips = 1
    while job.batch_size % (2 * chips) == 0:
        images = job.batch_size / (2 * chips)
        if ring_seconds(2 * chips, 4 * job.parameters, chip) > compute_seconds(job, images, chip):
            break
        chips *= 2
    return chips


def preset_job(name: str, config: Any, shape: tuple[int, int, int]) -> Job:
    """Counts what a preset of `experiments.glow_celeba` computes; nothing is run."""
    import jax
    import jax.numpy as jnp

    from experiments import glow_celeba

    model = glow_celeba.build(config, shape)
    images = jax.ShapeDtypeStruct((1, *shape), jnp.uint8)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
    sizes = config.model
    products = glow_products(shape, sizes.levels, sizes.steps, sizes.width)
    passes = REVERSIBLE_PASSES if sizes.backward == "reversible" else TRAINING_PASSES
    width = jnp.dtype(sizes.precision).itemsize
    return Job(
        name,
        config.train.batch_size,
        parameters,
        passes * forward_operations(products),
        passes * _traffic(products, width),
    )


def _traffic(products: list[Product], width: int) -> int:
    """Bytes that convolutions read and write for one image."""
    return sum(width * product.entries for product in products)


def preset_jobs() -> list[Job]:
    """The two presets that were made for accelerators."""
    from experiments import glow_celeba

    shapes = {"celeba-64": (64, 64, 3), "celebahq-256": (256, 256, 3)}
    return [
        preset_job(name, glow_celeba.PRESETS[name].config, shape) for name, shape in shapes.items()
    ]


def print_slices() -> None:
    """Prints, for each preset and kind of chip, what a step takes on slices of up to 256 chips."""
    print(
        f"\nOn paper, not measured: {SHARE:.0%} of the peak, float32 gradients around one ring on "
        f"one link in one direction, {1e6 * HOP_SECONDS:.0f} us a hop, nothing overlapping."
    )
    for job in preset_jobs():
        size = 4 * job.parameters
        print(
            f"\n{job.name}: {job.parameters / 1e6:.1f} M parameters, {size / 1e6:.0f} MB of "
            f"gradients, {job.operations / 1e9:.0f} G operations and {job.traffic / 1e9:.2f} GB of "
            f"activations an image, batch {job.batch_size}."
        )
        print("Milliseconds of compute + all-reduce (share of all-reduce):")
        for grown in (False, True):
            head = ("chips", "images a chip", *TPUS)
            table(head, [_row(job, chips, grown) for chips in CHIPS])
        for name, chip in TPUS.items():
            alone = compute_seconds(job, 1, chip)
            print(
                f"{job.name} on {name}: {1 / alone:.0f} images a second a chip; batch "
                f"{job.batch_size} serves {most_chips(job, chip)} chips; at 256 chips computing "
                f"takes as long as the all-reduce from "
                f"{ring_seconds(256, size, chip) / alone:.1f} images a chip on."
            )


def _row(job: Job, chips: int, grown: bool) -> tuple:
    if not grown and job.batch_size % chips:
        return chips, f"{job.batch_size} don't divide", *("-" for _ in TPUS)
    images = IMAGES_OF_A_CHIP if grown else job.batch_size // chips
    cells = []
    for chip in TPUS.values():
        compute = compute_seconds(job, images, chip)
        reduce = ring_seconds(chips, 4 * job.parameters, chip)
        share = reduce / (compute + reduce)
        cells.append(f"{1e3 * compute:.1f} + {1e3 * reduce:.1f} ({share:.0%})")
    return chips, images, *cells
