"""What a run leaves behind, and which runs may go on in the same place."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import vaeflow
from vaeflow.training import TrainConfig, open_run_directory
from vaeflow.training.metric_log import MetricLog


@dataclasses.dataclass(frozen=True)
class Config:
    train: TrainConfig = dataclasses.field(default_factory=lambda: TrainConfig(seed=7))
    sizes: tuple[int, ...] = (1, 2)


def test_the_configuration_is_written_and_found_again(tmp_path):
    directory = open_run_directory(
        str(tmp_path / "a" / "run"), Config(), experiment="e", preset="p"
    )
    written = json.loads((tmp_path / "a" / "run" / "config.json").read_text())
    assert (written["experiment"], written["preset"]) == ("e", "p")
    assert written["config"]["train"]["seed"] == 7
    assert written["config"]["sizes"] == [1, 2]
    assert directory.figures.is_dir()
    again = open_run_directory(str(tmp_path / "a" / "run"), Config(), experiment="e", preset="p")
    assert again.config == directory.config


def test_another_configuration_is_refused_once_steps_were_made(tmp_path):
    other = Config(TrainConfig(seed=8), (1,))
    directory = open_run_directory(str(tmp_path), Config())
    open_run_directory(str(tmp_path), other)  # nothing was made yet
    directory = open_run_directory(str(tmp_path), Config())
    with MetricLog(directory, 0) as log:
        log.write(1, {"loss": 2.0})
    with pytest.raises(ValueError, match=r"train\.seed: 7 there, 8 here, sizes: ") as error:
        open_run_directory(str(tmp_path), other)
    assert "another --workdir" in str(error.value)
    assert json.loads((tmp_path / "config.json").read_text())["config"]["train"]["seed"] == 7


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"workdir .*file/run can't be used: Not a directory"):
        open_run_directory(str(tmp_path / "file" / "run"), Config())
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json isn't JSON"):
        open_run_directory(str(tmp_path), Config())


def test_lines_after_the_last_checkpoint_and_half_lines_are_made_again(tmp_path):
    directory = open_run_directory(str(tmp_path), Config())
    with MetricLog(directory, 0) as log:
        for step in (1, 2, 3):
            log.write(step, {"loss": step, "other": float("nan")})
    with directory.metrics_file.open("a") as file:
        file.write('{"step": 4, "lo')
    seconds = directory.read_metrics()[-1]["wall_seconds"]
    again = open_run_directory(str(tmp_path), Config())
    assert again.earlier_seconds == seconds
    assert again.wall_seconds() > seconds
    with MetricLog(again, 2) as log:
        log.write(3, {"loss": 30.0})
    lines = [json.loads(line) for line in directory.metrics_file.read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 2.0), (3, 30.0)]
    assert lines[0]["other"] is None
    assert len(list(directory.tensorboard.glob("events.out.tfevents.*"))) >= 1


def test_the_report_says_what_was_found_and_with_what(tmp_path):
    directory = open_run_directory(str(tmp_path), Config(), experiment="e", preset="p")
    assert directory.read_report() is None
    expected = {"bits_per_dim": {"value": 1.5, "source": "table 2"}}
    directory.write_report(
        step=9, metrics={"bits_per_dim": 1.25, "broken": float("inf")}, expected=expected
    )
    report = directory.read_report()
    assert report["metrics"] == {"bits_per_dim": 1.25, "broken": None}
    assert report["expected"] == expected
    assert [report[k] for k in ("experiment", "preset", "step", "seed")] == ["e", "p", 9, 7]
    assert report["wall_seconds"] >= 0
    assert report["device"] == "1 x cpu"
    assert {"python", "jax", "flax", "optax"} <= report["versions"].keys()


def test_the_model_lies_beside_the_report_with_all_that_builds_it_again(tmp_path):
    config = TrainConfig(steps=7)
    directory = open_run_directory(str(tmp_path), config, experiment="toy", preset="small")
    directory.write_model({"params": {"w": np.float32([1, 2])}}, (4, 4, 1))
    described, variables = vaeflow.load(tmp_path / "model.safetensors")
    assert described == {
        "experiment": "toy",
        "preset": "small",
        "shape": [4, 4, 1],
        "config": dataclasses.asdict(config),
    }
    np.testing.assert_array_equal(variables["params"]["w"], [1, 2])
