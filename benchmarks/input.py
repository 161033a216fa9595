"""Whether data come as fast as training consumes them, for every kind of source.

Images a second of each source through the training pipeline, compared with those that a training
step of the matching preset of Glow consumes, and how long real steps wait for their batches.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import pathlib
import statistics
import tempfile
import time
import unittest.mock
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import tyro

import vaeflow as vf
from benchmarks.generated import ALIGNED, write_archive, write_folder, write_prepared
from benchmarks.report import machine, table
from benchmarks.tpu_slice import TPUS, compute_seconds, preset_job
from experiments import _cli, glow_celeba
from vaeflow import data, training
from vaeflow.data import folder
from vaeflow.training.batches import groups, prefetch

GROUP = 16
"""Batches in one plan of the device-resident path."""
READ_AHEAD = 20
"""More batches than the pipeline reads before they are asked for."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the benchmark."""

    archive_images: int = 60_000
    """Images to train on in the archive of MNIST's shape."""
    folder_images: int = 2000
    """Image files in each folder."""
    prepared_images: int = 2000
    """Images prepared by TensorFlow Datasets."""
    seconds: float = 2.0
    """How long each source is read in a repetition."""
    repeats: int = 3
    """Repetitions, and the median counts."""
    train_seconds: float = 6.0
    """How long training steps are run on each source, two steps at least."""
    large_batch_size: int = 2
    """Batch of the steps of celeba-64, whose own is too large for a CPU."""
    shrink: bool = False
    """Use one step of width 8 in every model, to try the benchmark itself."""


class Case(NamedTuple):
    """A source and the preset that trains on it.

    Attributes:
      label: What the table calls it.
      config: What to open.
      preset: Preset of `experiments.glow_celeba`.
      decode: Whether images of a folder are decoded again on each reading, as large folders are.
    """

    label: str
    config: data.DataConfig
    preset: str
    decode: bool = False


def cases(config: Config, place: pathlib.Path) -> Iterator[Case]:
    """Generates the data and yields every kind of source."""
    yield Case("embedded:faces", data.DataConfig("embedded:faces", flip=True), "faces")
    yield Case("embedded:digits", data.DataConfig("embedded:digits"), "mnist")
    write_archive(place / "mnist.npz", config.archive_images)
    yield Case("npz:, MNIST's shape", data.DataConfig(f"npz:{place / 'mnist.npz'}"), "mnist")
    yield Case("embedded:sprites", data.DataConfig("embedded:sprites"), "celeba-64")
    write_folder(place / "small", config.folder_images, 64, 64)
    small = data.DataConfig(f"folder:{place / 'small'}", flip=True)
    yield Case("folder:, 64x64, in memory", small, "celeba-64")
    write_folder(place / "aligned", config.folder_images, *ALIGNED)
    aligned = data.DataConfig(
        f"folder:{place / 'aligned'}", image_size=64, crop="celeba", flip=True
    )
    yield Case("folder:, 218x178, decoded each time", aligned, "celeba-64", decode=True)
    name = write_prepared(place, config.prepared_images)
    prepared = dataclasses.replace(aligned, source=f"tfds:{name}", data_dir=str(place))
    yield Case("tfds:, 218x178 JPEG", prepared, "celeba-64")


def opened(case: Case) -> data.Dataset:
    """Opens the source of a case."""
    kept = 0 if case.decode else folder._IN_MEMORY_BYTES
    # Stands for a folder with more images than are kept in memory.
    with unittest.mock.patch.object(folder, "_IN_MEMORY_BYTES", kept):
        return data.open_dataset(case.config)


def rate(batches: Iterator[Any], images: int, seconds: float) -> float:
    """Images a second of an iterator whose items stand for so many images.

    Nothing counts until what was read ahead is used up, or as many seconds have passed.
    """
    start = time.perf_counter()
    for _ in range(READ_AHEAD):
        next(batches)
        if time.perf_counter() - start > seconds:
            break
    drawn, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        next(batches)
        drawn += images
    return drawn / (time.perf_counter() - start)


def source_rate(batches: training.Batches, config: Config) -> float:
    """Images a second of the stream, brought to the device ahead as training does."""
    return _median_rate(
        lambda: prefetch(jax.device_put(batch) for batch in batches.stream(0)),
        batches.batch_size,
        config,
    )


def plan_rate(batches: training.Batches, config: Config) -> float:
    """Images a second of the plan, by which batches are gathered on the device itself."""
    return _median_rate(
        lambda: prefetch(
            jax.device_put(rows)
            for _, rows in groups(batches.plan(0), itertools.repeat(GROUP), GROUP)
        ),
        GROUP * batches.batch_size,
        config,
    )


def _median_rate(start, images: int, config: Config) -> float:
    results = []
    for _ in range(config.repeats):
        with contextlib.closing(start()) as batches:
            results.append(rate(batches, images, config.seconds))
    return statistics.median(results)


class Trainer:
    """The training step of a preset, compiled for one shape of images."""

    def __init__(self, preset: str, dataset: data.Dataset, config: Config):
        chosen = glow_celeba.PRESETS[preset].config
        # CPUs have no bfloat16 of their own.
        sizes = dataclasses.replace(chosen.model, precision="float32")
        if config.shrink:
            sizes = dataclasses.replace(
                sizes, levels=1, steps=1, width=8, dequantization="uniform", backward="plain"
            )
        self.batch_size = chosen.train.batch_size
        if preset == "celeba-64":
            self.batch_size = min(config.large_batch_size, self.batch_size)
        model = glow_celeba.build(dataclasses.replace(chosen, model=sizes), dataset.shape)
        optimizer = training.make_optimizer(chosen.train)
        loss = vf.losses.negative_log_likelihood
        self.step = training.make_train_step(model, loss, optimizer, seed=0)
        first = data.stack(dataset.train, 64)["image"]
        variables = jax.jit(model.init)(jax.random.key(0), first)
        self.state = training.create_train_state(variables, optimizer)

    def run(self, batches: Iterator[data.dataset.Batch], seconds: float) -> tuple[float, float]:
        """Trains for a while; returns seconds a step, and seconds a step waited for its batch."""
        self.state, metrics = self.step(self.state, next(batches))
        jax.block_until_ready(metrics)
        waits, start = [], time.perf_counter()
        while time.perf_counter() - start < seconds or len(waits) < 2:
            asked = time.perf_counter()
            batch = next(batches)
            waits.append(time.perf_counter() - asked)
            self.state, metrics = self.step(self.state, batch)
            jax.block_until_ready(metrics)
        elapsed = time.perf_counter() - start
        return elapsed / len(waits), statistics.mean(waits)


def measure(case: Case, config: Config, trainers: dict[tuple, Trainer]) -> dict[str, float]:
    """All figures of one source."""
    start = time.perf_counter()
    dataset = opened(case)
    results = {"open": time.perf_counter() - start}
    key = (case.preset, dataset.shape)
    if key not in trainers:
        trainers[key] = Trainer(case.preset, dataset, config)
    trainer = trainers[key]
    # The source is read in the batches of the preset, a step on a CPU may take smaller ones.
    own = min(glow_celeba.PRESETS[case.preset].config.train.batch_size, len(dataset.train))
    batches = training.Batches(dataset.train, own, 0, case.config.flip)
    results["source"] = source_rate(batches, config)
    results["plan"] = plan_rate(batches, config)
    fed = dataclasses.replace(batches, batch_size=min(trainer.batch_size, own))
    one = jax.device_put(next(fed.stream(0)))
    alone, _ = trainer.run(itertools.repeat(one), config.train_seconds)
    with contextlib.closing(prefetch(jax.device_put(batch) for batch in fed.stream(0))) as stream:
        step, results["wait"] = trainer.run(stream, config.train_seconds)
    results["eaten"] = fed.batch_size / alone
    results["slower"] = step / alone
    results["share"] = results["wait"] / step
    return results


def accelerator_rate() -> float:
    """Images a second of celeba-64 that one TPU v5e chip would eat on paper."""
    job = preset_job("celeba-64", glow_celeba.PRESETS["celeba-64"].config, (64, 64, 3))
    return 1 / compute_seconds(job, 1, TPUS["v5e"])


def main(config: Config) -> None:
    """Measures, and prints the tables and who falls behind."""
    _cli.quieten()
    machine("jax", "grain", "numpy", "pillow", "tensorflow-datasets", "array-record")
    results, presets = {}, {}
    with tempfile.TemporaryDirectory() as place:
        trainers: dict[tuple, Trainer] = {}

        def rows() -> Iterator[tuple]:
            for case in cases(config, pathlib.Path(place)):
                figures = results[case.label] = measure(case, config, trainers)
                presets[case.label] = case.preset
                yield (
                    case.label,
                    f"{figures['open']:.2f}",
                    f"{figures['source']:,.0f}",
                    f"{figures['plan']:,.0f}",
                    case.preset,
                    f"{figures['eaten']:,.3g}",
                    f"{figures['source'] / figures['eaten']:,.1f}",
                    f"{1e3 * figures['wait']:.2f}",
                    f"{figures['share']:.1%}",
                    f"{figures['slower']:.2f}",
                )

        head = ("source", "open, s", "images/s", "plan, images/s", "preset", "eaten, images/s")
        tail = ("headroom", "wait a step, ms", "of the step", "step over step without pipeline")
        table((*head, *tail), rows())
    late = [name for name, figures in results.items() if figures["source"] < figures["eaten"]]
    print(f"Slower than training on this machine: {', '.join(late) or 'no source'}.")
    chip = accelerator_rate()
    listed = ", ".join(
        f"{name} {results[name]['source'] / chip:.1f}"
        for name, preset in presets.items()
        if preset == "celeba-64"
    )
    print(
        f"Headroom on this machine's cores for one TPU v5e chip, which on paper consumes "
        f"{chip:.0f} images/s of celeba-64: {listed}."
    )


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
