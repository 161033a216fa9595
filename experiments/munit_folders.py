"""MUNIT between any two sets of images: two folders, or the halves of files that hold both.

One command trains it, reports each term of its loss on held-out images, and draws translations in
styles that are drawn at random and in those of examples, between styles, and there and back.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments import common, munit_models
from experiments.munit_runs import Config, build, functions, run
from vaeflow import data

__all__ = ["PRESETS", "Config", "build", "functions", "run"]


def preset(
    yields: str,
    cost: str,
    pair: data.PairConfig,
    model: munit_models.ModelConfig,
    **train: Any,
) -> common.Preset:
    """A preset that differs from others in its data, its networks and its training."""
    return common.Preset(
        Config(
            pair,
            model,
            munit_models.LossConfig(),
            dataclasses.replace(munit_models.TRAIN, **train),
        ),
        yields=yields,
        cost=cost,
    )


PRESETS = {
    "faces": preset(
        "80 faces and line drawings of them, which are embedded; coarse, learned from so few.",
        "6 minutes on 2 CPU cores",
        data.PairConfig("embedded:face-edges", "embedded:faces", flip=True),
        munit_models.SMALL,
        steps=1500,
    ),
    "paper": preset(
        "Images of 256 pixels, with the paper's sizes, rates and batches: --data.a folder:PATH "
        "--data.b folder:PATH. Where files hold a drawing and a photograph side by side, as in "
        "edges2shoes, both are one folder, with --data.crop-a left --data.crop-b right.",
        "days on one GPU",
        data.PairConfig("folder:PATH", "folder:PATH", image_size=256, flip=True),
        munit_models.ModelConfig(),
        steps=1_000_000,
        batch_size=1,
        learning_rate=1e-4,
        halve_every=100_000,
        weight_decay=1e-4,
        scan_steps=1,
        log_every=100,
        checkpoint_every=10_000,
    ),
}

if __name__ == "__main__":
    common.main("munit_folders", PRESETS, run)
