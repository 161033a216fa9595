"""Directories of runs: configurations, metrics and reports."""

from __future__ import annotations

import functools
import json
import math
import pathlib
from typing import Any

import numpy as np

from tests.fuzz.mutations import SPECIAL, damaged, name_of, pick, special_file
from tests.fuzz.oracle import Input
from vaeflow import training
from vaeflow.training.run_directory import open_run_directory

CONFIG = training.TrainConfig(steps=9)

LINES = [{"step": step, "wall_seconds": step / 4, "loss": 1 / (1 + step)} for step in range(4)]

FILES = ["config.json", "metrics.jsonl", "report.json"]

VALUES = ["", "{", "[]", "3", "null", '"a"', "\0", "\ufeff{}", '{"a": 1e999}', '{"a": NaN}', "{}"]
VALUES += ["[" * 10**5, '{"a":' * 10**5, "9" * 10**5, '{"step": "x"}', '{"step": 1, "loss": [1]}']
VALUES += ['{"a": ' + "9" * 5000 + "}", "[1]\n" * 3, '{"metrics": 3}', '{"step": 1e30}', "\ud800"]
VALUES += ["x" * 10**6, '{"\n": 1}', '{"\x1b[31m": 1, "step": 1}', '{"metrics": {"a": "b"}}']


def _strict(content: bytes) -> Any:
    value = json.loads(content.decode())
    numbers = [number for number in value.values() if isinstance(number, float)]
    assert all(map(math.isfinite, numbers))
    return value


def right(root: pathlib.Path, found: tuple[list[dict[str, Any]], dict[str, Any] | None]) -> bool:
    """Whether the files hold the metrics and the report that were read."""
    lines, report = found
    *held, last = (root / "metrics.jsonl").read_bytes().split(b"\n")
    expected = [_strict(line) for line in held]
    if len(lines) > len(expected):
        expected.append(_strict(last))
    return lines == expected and report == _strict((root / "report.json").read_bytes())


def make(random: np.random.Generator, folder: pathlib.Path) -> Input:
    """Makes a directory with one file that is hostile."""
    root = folder / name_of(random, "")
    directory = open_run_directory(str(root), CONFIG, experiment="toy", preset="small")
    text = "".join(json.dumps(line) + "\n" for line in LINES)
    (root / "metrics.jsonl").write_text(text)
    directory.write_report(step=3, metrics={"loss": 0.25})

    def read() -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
        opened = open_run_directory(str(root), CONFIG, experiment="toy", preset="small")
        return opened.read_metrics(), opened.read_report()

    name = pick(random, FILES)
    kind = pick(random, ["damaged"] * 6 + ["value"] * 4 + ["special"])
    content = (root / name).read_bytes()
    if kind == "special":
        (root / name).unlink()
        title = pick(random, SPECIAL[:-2])
        special_file(root / name, title)
        return Input(f"{name}: {title}", read, None)
    if kind == "damaged":
        title, content = damaged(random, content)
    else:
        title = pick(random, VALUES)
        content = title.encode("utf-8", "surrogatepass")
        if name == "metrics.jsonl":
            content += b"\n" + text.encode()
    (root / name).write_bytes(content)
    return Input(f"{name}: {title[:200]}", read, functools.partial(right, root))
