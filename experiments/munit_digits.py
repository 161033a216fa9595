"""MUNIT between digits and coloured, textured drawings of digits: one content, many styles.

One command trains it and measures whether digits stay the same, the diversity of styles and the
distance of translations from drawings. Model and figures are those of `experiments.munit_folders`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

import vaeflow as vf
from experiments import _cli, _scores, munit_folders
from experiments.munit_folders import build
from vaeflow import data, training
from vaeflow.training.config import check_batch_size

__all__ = ["PRESETS", "Config", "build", "run"]

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Config(munit_folders.Config):
    """A run."""

    classifier_train: training.TrainConfig = _scores.TRANSLATION_TRAIN
    """How to train each of the three classifiers that translations are scored by: of digits in
    both domains, and of styles."""


LATER = dict.fromkeys(("model", "loss", "train"), "metrics.jsonl")
"""Options that are used once the classifiers are trained, and a file by which that has begun."""

PRESETS = {
    "digits": _cli.Preset(
        Config(
            data.PairConfig(),
            munit_folders.SMALL,
            munit_folders.LossConfig(),
            munit_folders.TRAIN,
        ),
        yields="Digits and their drawings, which are embedded. The scores need known styles, so b "
        "is always embedded:drawings, and a the digits.",
        cost="11 minutes on 2 CPU cores",
        expected={
            "content_agreement/a_to_b": _cli.Expected(0.964, "our run, seed 0"),
            "content_agreement/b_to_a": _cli.Expected(0.862, "our run, seed 0"),
            "diversity_ratio/real": _cli.Expected(0.70, "our run, seed 0"),
            "frechet_distance/a_to_b": _cli.Expected(90, "our run, seed 0"),
        },
    ),
}


def run(config: Config, directory: training.RunDirectory) -> _cli.Result:
    """Trains, measures and plots."""
    check_batch_size(config.classifier_train, "classifier_train")  # rendering takes seconds
    pair = munit_folders.open_pair(config)
    for dataset in pair:
        _cli.check_batches(config.classifier_train, "classifier_train", len(dataset.train))
    scorer = _scores.open_translation_scorer(
        pair, directory, fold=config.data.fold, train=config.classifier_train
    )
    step, variables, terms = munit_folders.fit(config, pair, directory)
    model = build(config, munit_folders.shapes_of(pair))
    to_a, to_b = (translator(model, domain) for domain in ("a", "b"))

    def translate_b(images: np.ndarray, samples: int) -> np.ndarray:
        keys = jax.random.split(jax.random.key(1), samples)
        return np.stack([to_b(variables, images, key) for key in keys], axis=1)

    def translate_a(images: np.ndarray) -> np.ndarray:
        return np.asarray(to_a(variables, images, jax.random.key(2)))

    return _cli.Result(step, scorer.report(translate_b, translate_a) | terms)


def translator(model: vf.models.MUNIT, to: str):
    """Compiles `translate(variables, images, key)` to a domain, with random styles."""
    return jax.jit(
        lambda variables, images, key: model.apply(
            variables, images, to, rng=key, method="translate"
        )
    )


if __name__ == "__main__":
    _cli.main("munit_digits", PRESETS, run, later=LATER)
