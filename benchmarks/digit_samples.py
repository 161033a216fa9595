"""Samples of runs on the same labelled images, held against the images by one classifier.

For each run: how sure a classifier is of what the samples are, how evenly the classes occur, and
the Fréchet distance between its features of the samples and of training images, with that of test
images. Figures by other classifiers can't be compared with these.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import tyro

from benchmarks.report import machine, table
from experiments._scores import SampleScores, draw_samples, open_scorer
from experiments.export import open_run
from vaeflow import data, training


@dataclasses.dataclass(frozen=True)
class Config:
    """Which runs."""

    runs: tyro.conf.Positional[tuple[str, ...]]
    """Directories of finished runs whose models sample images."""
    data: data.DataConfig
    """The labelled images that they were trained on."""
    workdir: str = "runs/digit_samples"
    """Where the classifier is kept, to be used again."""
    count: int | None = None
    """Samples of each run; as many as there are test images, up to 10,000, if not given."""


def samples(run: str, count: int, shape: tuple[int, ...]) -> np.ndarray:
    """Draws samples of a run's model.

    Raises:
      ValueError: If the run's images have another shape than the data.
    """
    opened = open_run(run)
    if opened.shape != shape:
        raise ValueError(f"run {run} is of images of shape {opened.shape}, the data of {shape}")
    model = opened.module.build(opened.config, opened.shape)
    draw = jax.jit(functools.partial(model.apply, method="sample"), static_argnums=2)
    return draw_samples(functools.partial(draw, opened.variables), jax.random.key(0), count)


def main(config: Config) -> None:
    """Draws, scores and prints a table."""
    machine("jax", "flax", "numpy")
    dataset = data.open_dataset(config.data)
    directory = training.open_run_directory(config.workdir, config.data)
    scorer = open_scorer(dataset, config.data, directory, count=config.count)
    rows = {"test images": scorer.held_out}
    rows |= {run: scorer(samples(run, scorer.count, dataset.shape)) for run in config.runs}
    print(f"\n{scorer.count} images each; the classifier is right on {scorer.accuracy:.2%} of all")
    table(
        ("images", *(name.replace("_", " ") for name in SampleScores._fields)),
        ((name, *(f"{value:.3f}" for value in scores)) for name, scores in rows.items()),
    )


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
