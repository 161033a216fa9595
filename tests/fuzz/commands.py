"""Command lines of experiments."""

from __future__ import annotations

import contextlib
import io
import pathlib

import numpy as np

from experiments import _cli, tabular_density
from tests.fuzz.mutations import pick
from tests.fuzz.oracle import MARK, Input

OPTIONS = [
    "--train.steps",
    "--train.learning-rate",
    "--train.seed",
    "--train.ema-decay",
    "--preset",
]
OPTIONS += ["--data.source", "--data.fold", "--train.strategy", "--model.flow", "--train.patience"]
OPTIONS += ["--workdir", "--train.batch-size", "--nothing", "--train", "-h", "--", "--train.steps="]
OPTIONS += ["--preset"]

VALUES = ["", "0", "-1", "1e400", "inf", "nan", "9" * 30, "9" * 5000, "x", "\n", "\x1b[31m", "\0"]
VALUES += [
    "é",
    "\udcff",
    "None",
    "True",
    "1.5",
    "0x10",
    "[1]",
    "a" * 10**5,
    "--",
    "-",
    "../..",
    "{}",
]
VALUES += ["npz:/dev/zero", "adam", "jit", "1 2", "'", '"', "%s", "\u202e", "1_000", "\u0661", "{}"]


def make(random: np.random.Generator, folder: pathlib.Path) -> Input:
    """Makes a command line of good and of wrong words; nothing is trained."""
    words = ["--workdir", str(folder / MARK)]
    for _ in range(int(random.integers(1, 4))):
        words += [pick(random, OPTIONS), pick(random, VALUES)][: int(random.integers(1, 3))]

    def read() -> int:
        out, err = io.StringIO(), io.StringIO()
        streams = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
        with contextlib.chdir(folder), streams[0], streams[1]:
            try:
                code = _cli.execute("tabular_density", tabular_density.PRESETS, _run, words)
            except SystemExit as stop:
                code = stop.code or 0
        if code:
            (line,) = err.getvalue().removesuffix("\n").split("\n")[-1:]
            raise ValueError(f"{MARK} {line}")
        return code

    return Input(repr(words[2:])[:200], read, lambda code: code == 0)


def _run(config: tabular_density.Config, directory: object) -> _cli.Result:
    return _cli.Result(0, {})
