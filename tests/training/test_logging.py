"""Loggers of `fit`: what they are told and on which host, and runs that go on without one."""

from __future__ import annotations

import dataclasses
import functools
import json
import math

import pytest
import toy
import tqdm
import tqdm.auto

from vaeflow import training
from vaeflow.training import logging
from vaeflow.training.logging import MetricLog

CONFIG = training.TrainConfig(
    steps=8, batch_size=8, log_every=2, evaluate_every=3, checkpoint_every=4, ema_decay=0.0
)


@dataclasses.dataclass
class Recorder:
    """Keeps its calls; fails in the method that is named."""

    calls: list
    start_step: int
    failing: str = ""

    def write(self, step, metrics):
        self._call("write", step, metrics)

    def flush(self):
        self._call("flush")

    def close(self):
        self._call("close")

    def _call(self, method, *arguments):
        self.calls.append((method, *arguments))
        if method == self.failing:
            raise ConnectionError("there is\nno network")


def recorder(calls, **options):
    """A logger as `fit` takes it."""

    def open_recorder(directory, start_step):
        calls.append(("open", directory.path.name, start_step))
        return Recorder(calls, start_step, **options)

    return open_recorder


def evaluate(step, variables):
    if step == 6:
        raise InterruptedError
    return {"distance": math.inf}


def fit(path, *loggers, evaluate=evaluate):
    return training.train(
        toy.Model(),
        toy.loss,
        toy.batches(CONFIG),
        CONFIG,
        training.open_run_directory(str(path), CONFIG),
        initialize=toy.initialize,
        evaluate=evaluate,
        loggers=loggers,
    )


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """The calls of a session that ended at step 6, of one that failed at once, and of the next."""
    path, first, failed, second = tmp_path_factory.mktemp("fit") / "run", [], [], []
    with pytest.raises(InterruptedError):
        fit(path, recorder(first), recorder(failed, failing="write"))
    fit(path, recorder(second), evaluate=lambda step, variables: {"distance": math.nan})
    return path, first, failed, second


def test_loggers_are_told_each_step_once_and_flushed_before_checkpoints(session):
    _, first, _, second = session
    assert [call[:2] for call in first] == [
        *(("open", "run"), ("write", 1), ("write", 2), ("write", 3), ("write", 4)),
        *(("flush",), ("close",)),
    ]
    assert first[0] == ("open", "run", 0)
    assert [call[:2] for call in second] == [
        *(("open", "run"), ("write", 6), ("write", 8), ("flush",), ("close",)),
    ]
    assert second[0] == ("open", "run", 4)
    assert first[3][2]["distance"] == math.inf
    assert {"loss", "error", "gradient_norm"} < first[3][2].keys()


def test_a_session_without_tensorboard_writes_no_events(session):
    path, first, _, second = session
    assert not (path / "tensorboard").exists()
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    steps = [call[1] for call in first + second if call[0] == "write"]
    assert [line["step"] for line in lines] == steps


def test_a_logger_that_fails_is_closed_and_left_out(session):
    assert [call[0] for call in session[2]] == ["open", "write", "close"]


@pytest.mark.parametrize("failing", ["write", "flush", "close"])
def test_the_failure_of_a_logger_is_a_warning(tmp_path, capsys, failing):
    directory = training.open_run_directory(str(tmp_path), CONFIG)
    calls, others = [], []
    with MetricLog(directory, 0, [recorder(calls, failing=failing), recorder(others)]) as log:
        log.write(3, {"loss": math.nan})
        log.flush()
    assert [call[0] for call in others] == ["open", "write", "flush", "close"]
    assert [call[0] for call in calls][-1] == "close"
    assert (
        f"warning: Recorder failed in {failing}, after step 3 (there is no network); the run goes"
        " on without it\n"
    ) == capsys.readouterr().err
    assert [line["loss"] for line in directory.read_metrics()] == [None]


def test_loggers_that_were_opened_are_closed_if_another_cannot_be(tmp_path):
    def fails(directory, start_step, place):
        raise KeyError(place)

    directory = training.open_run_directory(str(tmp_path), CONFIG)
    calls = []
    with pytest.raises(ValueError, match="logger fails can't be opened: 'there'"):
        MetricLog(directory, 0, [recorder(calls), functools.partial(fails, place="there")])
    assert [call[0] for call in calls] == ["open", "close"]


def test_other_hosts_open_none(tmp_path, monkeypatch):
    monkeypatch.setattr(training.loop, "is_first", lambda: False)
    calls = []
    fit(tmp_path / "run", recorder(calls), evaluate=None)
    assert calls == []
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("shown", [True, False])
def test_a_bar_is_shown_where_it_is_wanted(capsys, shown):
    with logging.progress_bar(5, 2, shown) as bar:
        bar.update(3)
    assert ("5/5" in capsys.readouterr().err) == shown


@pytest.mark.parametrize(("widgets", "kind"), [(None, tqdm.tqdm), ("here", tqdm.auto.tqdm)])
def test_notebooks_without_widgets_get_a_bar_of_text(monkeypatch, widgets, kind):
    """tqdm's own choice of a bar warns there."""
    monkeypatch.setattr(logging.importlib.util, "find_spec", lambda name: widgets)
    with logging.progress_bar(5, 0, False) as bar:
        assert type(bar) is kind
