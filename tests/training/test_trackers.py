"""Loggers of Weights & Biases, offline, and of MLflow, in a local store: the real packages."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import pathlib
import signal
import subprocess
import sys

import pytest
import wandb_records

from experiments import _cli
from vaeflow import training
from vaeflow.training import MLflowLogger, WandbLogger
from vaeflow.training.logging import MetricLog

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOY = ROOT / "tests" / "training" / "toy_experiment.py"


@dataclasses.dataclass(frozen=True)
class Config:
    """A configuration with nested fields."""

    train: training.TrainConfig = dataclasses.field(default_factory=training.TrainConfig)
    sizes: tuple[int, ...] = (1, 2)


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:sqlalchemy|mlflow")


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


@pytest.fixture(params=["file", pytest.param("sqlite", marks=pytest.mark.slow)])
def store(request, tmp_path):
    """The address of a store of MLflow."""
    return f"{request.param}:///{tmp_path}/mlruns" + (".db" if request.param == "sqlite" else "")


def open_directory(path):
    return training.open_run_directory(str(path), Config(), experiment="toy", preset="small")


def write(path, start, steps, *loggers):
    """A session that goes on from step `start`, and makes `steps`."""
    with MetricLog(open_directory(path), start, loggers) as log:
        for step in steps:
            log.write(step, {"loss": step / 2, "first/bad": math.inf if step % 2 else 1.0})
    if (path / "wandb").exists():
        wandb_records.wait(path)


def steps_of(path):
    return [line["step"] for line in open_directory(path).read_metrics()]


def test_wandb_has_each_step_once_in_one_run(tmp_path):
    run = tmp_path / "run"
    write(run, 0, range(1, 7), WandbLogger)
    write(run, 4, range(5, 9), WandbLogger)  # from the checkpoint of step 4
    (first, before), (second, after) = wandb_records.sessions(run)
    assert first == second
    assert [line["_step"] for line in before] == [1, 2, 3, 4, 5, 6]
    assert before[0] == {"_step": 1, "loss": 0.5, "first/bad": math.inf}
    assert [line["_step"] for line in after] == [7, 8]
    assert steps_of(run) == [1, 2, 3, 4, 5, 6, 7, 8]
    write(tmp_path / "other", 0, [1], WandbLogger)
    assert wandb_records.sessions(tmp_path / "other")[0][0] != first


def test_wandb_has_the_configuration_and_the_name(tmp_path):
    write(tmp_path / "run", 0, [1], functools.partial(WandbLogger, project="faces"))
    path = next((tmp_path / "run").glob("wandb/offline-run-*/*.wandb"))
    seen = wandb_records.messages(path)
    run = next(each.run for each in seen if each.WhichOneof("record_type") == "run")
    assert (run.display_name, run.project) == ("run", "faces")
    updates = {
        item.key: json.loads(item.value_json)
        for each in seen
        if each.WhichOneof("record_type") == "config"
        for item in each.config.update
    }
    assert updates["train"]["batch_size"] == 64
    assert updates["sizes"] == [1, 2]


def test_wandb_gets_the_steps_that_it_lacks(tmp_path):
    """Those of sessions without it, and those that a killed wandb hadn't written."""
    run = tmp_path / "run"
    write(run, 0, range(1, 5))
    write(run, 4, range(5, 7), WandbLogger)
    ((_, lines),) = wandb_records.sessions(run)
    assert [line["_step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert (lines[1]["loss"], lines[1]["first/bad"]) == (1.0, 1.0)
    assert math.isnan(lines[0]["first/bad"])  # null in metrics.jsonl
    path = next(run.glob("wandb/offline-run-*/*.wandb"))
    ends = [len(path.read_bytes())]
    while wandb_records.sessions(run)[0][1][-1]["_step"] > 3:
        ends.append(ends[-1] - 1)
        path.write_bytes(path.read_bytes()[: ends[-1]])
    write(run, 6, [7], WandbLogger)
    assert [line["_step"] for line in wandb_records.sessions(run)[1][1]] == [4, 5, 6, 7]


def history(store, path):
    """Steps and values of each metric, in the order in which they were written; and the run."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store)
    run = client.get_run(json.loads((path / "mlflow.json").read_text())["run_id"])
    found = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    return run, {name: [(one.step, one.value) for one in all] for name, all in found.items()}


def test_mlflow_has_each_step_once_in_one_run(tmp_path, store):
    run, logger = tmp_path / "run", functools.partial(MLflowLogger, tracking_uri=store)
    write(run, 0, range(1, 7), logger)
    described, _ = history(store, run)
    write(run, 4, range(5, 9), logger)
    again, found = history(store, run)
    assert again.info.run_id == described.info.run_id
    assert (again.info.run_name, again.info.status) == ("run", "FINISHED")
    assert found["loss"] == [(step, step / 2) for step in range(1, 9)]
    assert found["first/bad"] == [(step, 1.0) for step in (2, 4, 6, 8)]
    assert again.data.params["train.batch_size"] == "64"
    assert again.data.params["sizes"] == "[1, 2]"

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store)
    assert client.get_experiment(again.info.experiment_id).name == "toy"
    client.delete_run(again.info.run_id)
    write(run, 8, [9], logger)  # another run, which has all steps: the deleted one takes none
    later, found = history(store, run)
    assert later.info.run_id != again.info.run_id
    assert found["loss"] == [(step, step / 2) for step in range(1, 10)]


def test_mlflow_holds_metrics_back_until_a_checkpoint(tmp_path, store):
    run, logger = tmp_path / "run", functools.partial(MLflowLogger, tracking_uri=store)
    with MetricLog(open_directory(run), 0, [logger]) as log:
        for step in range(1, 1301):  # more than it takes at once
            log.write(step, {"loss": float(step)})
        assert history(store, run)[1] == {}
        log.flush()
        assert len(history(store, run)[1]["loss"]) == 1300
        log.flush()
        assert len(history(store, run)[1]["loss"]) == 1300
        assert history(store, run)[0].info.status == "RUNNING"


def test_a_part_of_a_run_is_named_after_it(tmp_path, store):
    outer = open_directory(tmp_path / "run")
    (outer.path / "prior").mkdir()
    inner = dataclasses.replace(outer, path=outer.path / "prior")
    with MetricLog(inner, 0, [functools.partial(MLflowLogger, tracking_uri=store)]):
        pass
    assert history(store, tmp_path / "run" / "prior")[0].info.run_name == "run/prior"


def test_a_store_that_cannot_be_opened_is_said_before_the_first_step(tmp_path, monkeypatch):
    logger = functools.partial(MLflowLogger, tracking_uri="nowhere://there")
    with pytest.raises(ValueError, match=r"logger MLflowLogger can't be opened: .*nowhere"):
        MetricLog(open_directory(tmp_path), 0, [logger])
    for name, package in (("wandb", "wandb"), ("mlflow", "mlflow-skinny")):
        monkeypatch.setitem(sys.modules, name, None)
        config = training.LogConfig((name,))
        expected = rf"logger {name}: needs the package {package}; pip install 'vaeflow\[loggers\]'"
        with pytest.raises(ValueError, match=expected):
            MetricLog(open_directory(tmp_path), 0, config.loggers)


@pytest.mark.slow
def test_a_killed_command_goes_on_with_its_records(tmp_path):
    """Killed as step 12 is evaluated, after the checkpoint of step 8: steps are written once."""
    store = f"sqlite:///{tmp_path}/mlruns.db"
    words = [sys.executable, TOY, "--workdir", "run", "--kill-at", "12"]
    words += ["--log.to", "wandb", "mlflow", "tensorboard"]
    # A process that uses wandb has its service in the environment; each command has its own.
    inherited = {name: value for name, value in os.environ.items() if "SERVICE" not in name}
    environment = {
        **inherited,
        **{"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "MLFLOW_TRACKING_URI": store},
    }
    ends = []
    for _ in range(2):
        ended = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        ends.append(ended.returncode)
    assert ends == [-signal.SIGKILL, 0], ended.stderr
    lines = ended.stderr.replace("\r", "\n").splitlines()
    ours = ("toy, preset", "compiling", "training", "")
    assert all(not line or line.startswith(ours[:3]) for line in lines), lines
    expected = [1, 2, 3, 4, 6, 8, 9, 10, 12, 14, 15, 16, 18, 20]
    assert steps_of_file(tmp_path / "run") == expected
    sessions = wandb_records.sessions(tmp_path / "run")
    written = [line["_step"] for _, metrics in sessions for line in metrics]
    assert len(sessions) == 2
    assert written == expected  # though wandb hadn't written those before the kill
    _, found = history(store, tmp_path / "run")
    assert [step for step, _ in found["loss"]] == expected
    assert [step for step, _ in found["size"]] == [3, 6, 9, 12, 15, 18, 20]


def steps_of_file(path):
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_options_of_runs_of_before_go_on_with_other_loggers(tmp_path):
    """Where metrics go is no part of the configuration."""
    preset = {"only": _cli.Preset(Config(), yields="A toy.", cost="seconds")}
    seen = []

    def run(config, directory):
        seen.append(directory.loggers)
        with MetricLog(directory, len(seen) - 1, ()) as log:
            log.write(len(seen), {"loss": 1.0})
        if len(seen) < 3:
            raise ValueError("stopped")
        return _cli.Result(3, {})

    def execute(*words):
        arguments = ["--workdir", str(tmp_path / "run"), *words]
        return _cli.execute("toy", preset, run, arguments)

    assert execute() == 1
    before = (tmp_path / "run" / "config.json").read_bytes()
    assert execute("--log.to", "wandb", "mlflow") == 1
    assert execute("--log.to") == 0
    assert (tmp_path / "run" / "config.json").read_bytes() == before
    assert b'"log"' not in before
    assert seen == [(training.TensorBoardLogger,), (WandbLogger, MLflowLogger), ()]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("wandb", "wandb"), "log.to must be some of tensorboard, wandb, mlflow, got ('wandb',"),
        (("paper",), "invalid choice 'paper' for argument '--log.to"),
    ],
)
def test_wrong_loggers_are_a_line(tmp_path, capsys, words, message):
    preset = {"only": _cli.Preset(Config(), yields="A toy.", cost="seconds")}
    with pytest.raises(SystemExit):
        _cli.execute("toy", preset, None, ["--workdir", str(tmp_path), "--log.to", *words])
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
