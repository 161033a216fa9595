"""MUNIT between digits and coloured, textured drawings of digits: one content, many styles.

One command trains it, measures whether digits stay what they are, how many styles they get and how
near translations are to drawings, and draws them: in styles that are drawn at random and in those
of examples, between styles, and there and back.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from experiments import common, munit_models, munit_runs
from experiments.munit_runs import build, functions
from experiments.translation_scores import TRAIN, open_translation_scorer
from vaeflow import data, training
from vaeflow.training.config import check_batch_size

__all__ = ["PRESETS", "Config", "build", "functions", "run"]

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Config(munit_runs.Config):
    """A run."""

    classifier_train: training.TrainConfig = TRAIN
    """How to train each of the three classifiers that translations are scored by: of digits in
    both domains, and of styles."""


def run(config: Config, directory: training.RunDirectory) -> common.Result:
    """Trains, measures and draws."""
    check_batch_size(config.classifier_train, "classifier_train")
    pair = munit_runs.open_pair(config)
    scorer = open_translation_scorer(
        pair, directory, fold=config.data.fold, train=config.classifier_train
    )
    step, variables, terms = munit_runs.trained(config, pair, directory)
    model = build(config, munit_runs.shapes_of(pair))
    to = {domain: munit_runs.translator(model, domain) for domain in ("a", "b")}

    def translate_b(images: np.ndarray, samples: int) -> np.ndarray:
        keys = jax.random.split(jax.random.key(1), samples)
        return np.stack([to["b"](variables, images, key) for key in keys], axis=1)

    def translate_a(images: np.ndarray) -> np.ndarray:
        return np.asarray(to["a"](variables, images, jax.random.key(2)))

    return common.Result(step, scorer.report(translate_b, translate_a) | terms)


PRESETS = {
    "digits": common.Preset(
        Config(
            data.PairConfig(),
            munit_models.SMALL,
            munit_models.LossConfig(),
            munit_models.TRAIN,
        ),
        yields="Digits and their drawings, which are embedded. The scores need known styles, so b "
        "is always embedded:drawings, and a the digits.",
        cost="11 minutes on 2 CPU cores",
        expected={
            "content_agreement/a_to_b": common.Expected(0.964, "our run, seed 0"),
            "content_agreement/b_to_a": common.Expected(0.862, "our run, seed 0"),
            "diversity_ratio/real": common.Expected(0.70, "our run, seed 0"),
            "frechet_distance/a_to_b": common.Expected(90, "our run, seed 0"),
        },
    ),
}

if __name__ == "__main__":
    common.main("munit_digits", PRESETS, run)
