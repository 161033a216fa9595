"""An experiment around the toy model, for tests that need a process of their own."""

from __future__ import annotations

import dataclasses
import os
import signal

import numpy as np
import toy

from experiments import _cli
from vaeflow import training


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains the toy."""

    train: training.TrainConfig = dataclasses.field(
        default_factory=lambda: training.TrainConfig(
            steps=20, batch_size=8, checkpoint_every=4, evaluate_every=3, log_every=2
        )
    )
    """How to train."""
    kill_at: int = 0
    """Step at which the process kills itself, the first time that it gets there."""


def run(config: Config, directory: training.RunDirectory) -> _cli.Result:
    train = config.train

    def evaluate(step, variables):
        mark = directory.path / "killed"
        if step == config.kill_at and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        total = sum(float(np.abs(leaf).sum()) for leaf in variables["params"]["Dense_0"].values())
        return {"size": abs(total - 43.0)}

    result = training.train(
        toy.Model(),
        toy.loss,
        toy.batches(train),
        train,
        directory,
        initialize=toy.initialize,
        evaluate=evaluate,
        best="size",
    )
    return _cli.Result(result.step, result.metrics)


PRESETS = {
    "small": _cli.Preset(
        Config(),
        yields="A toy.",
        cost="a second",
        expected={"size": _cli.Expected(0.5, "a guess")},
    ),
    "smaller": _cli.Preset(Config(training.TrainConfig(steps=2)), yields="Less.", cost="less"),
}

if __name__ == "__main__":
    _cli.main("toy", PRESETS, run)
