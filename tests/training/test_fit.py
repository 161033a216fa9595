"""The loop: exact resumes, early figures, the best evaluation, and leaving in good order."""

from __future__ import annotations

import dataclasses
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from vaeflow import training

CONFIG = training.TrainConfig(
    steps=20, batch_size=8, checkpoint_every=5, evaluate_every=3, log_every=2, learning_rate=0.01
)


class Killed(Exception):
    """Stands for the end of a process."""


def fit(path, config=CONFIG, loss=toy.loss, **hooks):
    directory = training.open_run_directory(str(path), config)
    optimizer = training.make_optimizer(config)
    batches = toy.batches(config)
    return training.fit(
        toy.Model(),
        loss,
        optimizer,
        batches,
        config,
        directory,
        initialize=toy.initialize,
        **hooks,
    )


def lines(path, config=CONFIG):
    directory = training.open_run_directory(str(path), config)
    return [{k: v for k, v in x.items() if k != "wall_seconds"} for x in directory.read_metrics()]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run without hooks from beginning to end."""
    return fit(tmp_path_factory.mktemp("straight"))


def valley(step, variables):
    """Lowest at step 9."""
    return {"distance": abs(step - 9.0), "step": step}


def test_a_run_that_was_killed_ends_as_one_that_was_not(tmp_path):
    drawn = []

    def figures(step, variables):
        drawn.append(step)

    def killing(step, variables):
        if step == 12:
            raise Killed
        return valley(step, variables)

    hooks = {"figures": figures, "best": "distance"}
    straight = fit(tmp_path / "straight", evaluate=valley, **hooks)
    assert drawn == [1, 2, 4, 8, 16, 20]
    with pytest.raises(Killed):
        fit(tmp_path / "killed", evaluate=killing, **hooks)
    drawn.clear()
    resumed = fit(tmp_path / "killed", evaluate=valley, **hooks)
    assert drawn == [16, 20]

    toy.equal(resumed, straight)
    assert (straight.step, straight.metrics) == (9, {"distance": 0.0, "step": 9.0})
    assert not toy.same(straight.variables, training.variables_of(straight.state, ema=True))
    assert lines(tmp_path / "killed") == lines(tmp_path / "straight")
    steps = [line["step"] for line in lines(tmp_path / "straight")]
    assert steps == [1, 2, 3, 4, 6, 8, 9, 10, 12, 14, 15, 16, 18, 20]
    both = next(line for line in lines(tmp_path / "straight") if line["step"] == 9)
    assert {"loss", "error", "gradient_norm", "distance"} <= both.keys()

    again = fit(tmp_path / "killed", evaluate=killing, **hooks)  # finished: nothing is called
    toy.equal(again, straight)


def test_the_best_variables_are_those_of_their_step(tmp_path):
    seen = {}

    def evaluate(step, variables):
        seen[step] = [np.array(leaf) for leaf in jax.tree.leaves(variables)]
        return valley(step, variables)

    result = fit(tmp_path / "best", evaluate=evaluate, best="distance")
    toy.equal(jax.tree.leaves(result.variables), seen[9])
    last = fit(tmp_path / "last", evaluate=evaluate)
    assert (last.step, last.metrics) == (20, {"distance": 11.0, "step": 20.0})
    toy.equal(jax.tree.leaves(last.variables), seen[20])
    plain = fit(tmp_path / "plain", training.TrainConfig(steps=2, batch_size=8, ema_decay=0.0))
    toy.equal(plain.variables, training.variables_of(plain.state))
    assert plain.metrics == {}
    with pytest.raises(ValueError, match=r"one of the metrics \['distance', 'step'\], got 'loss'"):
        fit(tmp_path / "other", evaluate=evaluate, best="loss")
    with pytest.raises(ValueError, match="best='loss' needs evaluate"):
        fit(tmp_path / "none", best="loss")


@pytest.mark.optimized
def test_scanned_runs_end_as_the_others_and_every_run_compiles_once(tmp_path):
    traces = []

    def counted(*arguments, **options):
        traces.append(1)
        return toy.loss(*arguments, **options)

    results = []
    for scan_steps in (1, 4):
        config = dataclasses.replace(CONFIG, scan_steps=scan_steps)
        path = tmp_path / str(scan_steps)
        results.append(fit(path, config, counted, evaluate=valley, best="distance"))
        assert len(traces) == 1
        traces.clear()
    toy.equal(*results)


@pytest.mark.parametrize("scan_steps", [1, 4])
def test_patience_ends_a_run_and_one_that_was_killed_ends_where_it_would_have(
    tmp_path, capsys, scan_steps
):
    """The evaluation of step 9 is the best: two later ones, at 12 and 15, are one too many."""
    config = dataclasses.replace(CONFIG, patience=2, scan_steps=scan_steps, schedule="cosine")
    drawn, evaluated = [], []

    def figures(step, variables):
        drawn.append(step)

    def watched(step, variables):
        evaluated.append(step)
        return valley(step, variables)

    def killing(step, variables):
        if step == 12:
            raise Killed
        return watched(step, variables)

    hooks = {"figures": figures, "best": "distance"}
    straight = fit(tmp_path / "straight", config, evaluate=watched, **hooks)
    assert (straight.step, straight.state.step) == (9, 15)
    assert straight.metrics == {"distance": 0.0, "step": 9.0}
    assert (drawn, evaluated) == ([1, 2, 4, 8, 15], [3, 6, 9, 12, 15])
    assert (tmp_path / "straight" / "checkpoints" / "15").is_dir()
    told = "training ended early, after step 15: distance is best after step 9"
    assert told in capsys.readouterr().err
    assert lines(tmp_path / "straight", config)[-1]["step"] == 15

    with pytest.raises(Killed):
        fit(tmp_path / "killed", config, evaluate=killing, **hooks)
    assert max(int(path.name) for path in (tmp_path / "killed/checkpoints").iterdir()) == 10
    toy.equal(fit(tmp_path / "killed", config, evaluate=watched, **hooks), straight)
    assert lines(tmp_path / "killed", config) == lines(tmp_path / "straight", config)

    evaluated.clear()
    toy.equal(fit(tmp_path / "killed", config, evaluate=watched, **hooks), straight)
    assert not evaluated  # it had ended: no step is made after its last one

    # The schedule and the steps are those of a run of full length.
    longer = dataclasses.replace(config, patience=4)
    whole = fit(tmp_path / "whole", longer, evaluate=valley, best="distance")
    assert (whole.step, whole.state.step) == (9, 20)
    toy.equal(whole.variables, straight.variables)


def test_patience_starts_anew_with_every_better_evaluation(tmp_path):
    config = dataclasses.replace(CONFIG, patience=2)
    distances = {3: 5.0, 6: 6.0, 9: 4.0, 12: np.nan, 15: 3.0, 18: 3.0, 20: 3.0}

    def evaluate(step, variables):
        return {"distance": distances[step]}

    result = fit(tmp_path / "run", config, evaluate=evaluate, best="distance")
    assert (result.step, result.state.step) == (15, 20)
    with pytest.raises(ValueError, match="patience=2 needs best, got None"):
        fit(tmp_path / "none", config, evaluate=evaluate)
    with pytest.raises(ValueError, match="patience must be 0 without evaluate_every, got 2"):
        training.TrainConfig(patience=2)


def test_metrics_are_read_one_step_late(tmp_path, monkeypatch):
    order = []
    make = training.fit.__globals__["make_train_step"]

    def making(*arguments, **options):
        step = make(*arguments, **options)

        def watched(state, batch):
            order.append("dispatch")
            return step(state, batch)

        return watched

    record = training.progress.Progress.record

    def recording(self, *arguments):
        order.append("read")
        return record(self, *arguments)

    monkeypatch.setitem(training.fit.__globals__, "make_train_step", making)
    monkeypatch.setattr(training.progress.Progress, "record", recording)
    fit(tmp_path, training.TrainConfig(steps=4, batch_size=8))
    assert order == ["dispatch", "dispatch", "read", "dispatch", "read", "dispatch", "read", "read"]


@pytest.mark.parametrize("scan_steps", [1, 4])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(tmp_path, scan_steps):
    config = training.TrainConfig(
        steps=20, batch_size=8, scan_steps=scan_steps, checkpoint_every=5, log_every=1
    )

    def weight(step):
        return jnp.where(step == 6, jnp.nan, 1.0)

    for _ in range(2):  # the same command meets the same step again
        with pytest.raises(training.NonFiniteError, match="step 7: loss is nan, gradient_norm is"):
            fit(tmp_path / "broken", config, weights={"weight": weight})
        assert (tmp_path / "broken" / "checkpoints" / "6").is_dir()
    kept = training.open_run_directory(str(tmp_path / "broken"), config)
    assert [line["step"] for line in kept.read_metrics()] == [1, 2, 3, 4, 5, 6]
    whole = fit(tmp_path / "whole", config, weights={"weight": 1.0})
    mended = fit(tmp_path / "broken", config, weights={"weight": 1.0})
    toy.equal(mended, whole)
    assert mended.state.step == 20


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_leaves_at_any_step(tmp_path, straight, number):
    before = signal.getsignal(number)

    def figures(step, variables):
        if step == 8 and not (tmp_path / "mark").exists():
            (tmp_path / "mark").touch()
            os.kill(os.getpid(), number)

    with pytest.raises(training.Interrupted, match="stopped at step 8, which is saved") as stop:
        fit(tmp_path / "stopped", figures=figures)
    assert stop.value.signal_number == number
    assert (tmp_path / "stopped" / "checkpoints" / "8").is_dir()
    toy.equal(fit(tmp_path / "stopped"), straight)
    assert signal.getsignal(number) is before


def test_a_signal_is_heard_between_checkpoints_too(tmp_path, straight, monkeypatch):
    record = training.progress.Progress.record

    def recording(self, first, count, metrics):
        if first == 5:  # read while step 7 is under way
            os.kill(os.getpid(), signal.SIGTERM)
        return record(self, first, count, metrics)

    with monkeypatch.context() as patch:
        patch.setattr(training.progress.Progress, "record", recording)
        with pytest.raises(training.Interrupted, match="stopped at step 7, which is saved"):
            fit(tmp_path)
    toy.equal(fit(tmp_path), straight)


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(tmp_path, straight, capsys):
    fit(tmp_path)
    for file in (tmp_path / "checkpoints" / "20" / "tree").glob("**/d/*"):
        file.write_bytes(b"")
    capsys.readouterr()
    toy.equal(fit(tmp_path), straight)
    assert "warning: checkpoint 20 can't be read and is set aside, 15" in capsys.readouterr().err
