"""Trains MUNIT on two unpaired domains, measures what its losses are about, and draws."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

import vaeflow as vf
from experiments import common, munit_models
from experiments.munit_figures import Drawing
from vaeflow import data, losses, training
from vaeflow._util.random import row_keys
from vaeflow.training.config import check_batch_size

CHUNK = 20
"""Test images of each domain that are measured at once."""

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Config:
    """A run."""

    data: data.PairConfig
    model: munit_models.ModelConfig
    loss: munit_models.LossConfig
    train: training.TrainConfig


def build(config: Config, shapes: dict[str, munit_models.Shape]) -> vf.models.MUNIT:
    """Builds the trained model, for images of the shape of each domain."""
    return munit_models.build(config.model, shapes).generator


def functions(
    config: Config, shapes: dict[str, munit_models.Shape]
) -> dict[str, vf.sharing.FunctionSpec]:
    """Lists what `python -m experiments.export` writes of the model."""
    return vf.sharing.export_functions(build(config, shapes))


def run(config: Config, directory: training.RunDirectory) -> common.Result:
    """Trains, measures and draws."""
    pair = open_pair(config)
    step, _, found = trained(config, pair, directory)
    return common.Result(step, found)


def open_pair(config: Config) -> data.Pair:
    """Opens both domains, and says what they are.

    Raises:
      ValueError: If the options don't fit the data, before anything is trained.
    """
    check_batch_size(config.train)
    pair = data.open_pair(config.data)
    for domain, dataset in pair._asdict().items():
        print(f"{domain}: {dataset}")
        if len(dataset.train) < config.train.batch_size:
            raise ValueError(
                f"train.batch_size must be at most the {len(dataset.train)} training images of "
                f"domain {domain}, got {config.train.batch_size}"
            )
        if len(dataset.test) < 2:
            raise ValueError(f"domain {domain} must have 2 test images, to go between styles")
    return pair


def shapes_of(pair: data.Pair) -> dict[str, munit_models.Shape]:
    """Height, width and channels of the images of each domain."""
    return {domain: dataset.shape for domain, dataset in pair._asdict().items()}


def trained(
    config: Config, pair: data.Pair, directory: training.RunDirectory
) -> tuple[int, PyTree, dict[str, float]]:
    """Trains, or goes on, and leaves model and figures in the run's directory.

    Returns:
      The number of updates, the variables of the `vaeflow.models.MUNIT`, and figures by name.
    """
    train = config.train
    shapes = shapes_of(pair)
    game = munit_models.build(config.model, shapes)
    first = [data.stack(dataset.train, 1)["image"] for dataset in pair]
    drawing = Drawing(game.generator, pair, directory)
    fitted = training.fit(
        game,
        munit_models.losses_of(config.loss),
        training.UnpairedBatches(
            pair.a.train, pair.b.train, train.batch_size, train.seed, config.data.flip
        ),
        train,
        directory,
        optimizers=munit_models.optimizers_of(train),
        initialize=lambda: jax.jit(game.init)(jax.random.key(train.seed), *first),
        figures=lambda step, variables: drawing.progress(step, generator_of(game, variables)),
    )
    own = generator_of(game, fitted.variables)
    directory.write_model(own, shapes)
    if training.is_first():
        drawing.final(own)
    return fitted.step, own, held_out_terms(game, fitted.variables, pair)


def generator_of(game: vf.models.MUNITGame, variables: PyTree) -> PyTree:
    """The variables of the `vaeflow.models.MUNIT` alone."""
    return vf.models.submodel(game, variables, "generator")[1]


def held_out_terms(
    game: vf.models.MUNITGame, variables: PyTree, pair: data.Pair
) -> dict[str, float]:
    """Averages each term of the loss over test images, the cycle among them.

    As many images of each domain are taken as whole chunks of both hold.
    """
    count = min(len(dataset.test) for dataset in pair)
    chunk = min(CHUNK, count)

    @jax.jit
    def measure(variables: PyTree, batch: PyTree, key: jax.Array) -> dict[str, jax.Array]:
        return losses.munit(game, variables, batch, row_keys(key, chunk), cycle=1.0)[1].metrics

    found = []
    for start in range(0, count - chunk + 1, chunk):
        rows = np.arange(start, start + chunk)
        batch = {
            domain: {"image": dataset.test.gather(rows)["image"]}
            for domain, dataset in pair._asdict().items()
        }
        key = jax.random.fold_in(jax.random.key(0), start)
        found.append(jax.device_get(measure(variables, batch, key)))
    return {f"held_out/{name}": float(np.mean([each[name] for each in found])) for name in found[0]}


def translator(model: vf.models.MUNIT, to: str):
    """A compiled `translate(variables, images, key)` to a domain, in styles drawn at random."""
    return jax.jit(
        lambda variables, images, key: model.apply(
            variables, images, to, rng=key, method="translate"
        )
    )
