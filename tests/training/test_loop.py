"""The training loop: exact resume, hooks, early stopping, interrupts and non-finite losses."""

from __future__ import annotations

import dataclasses
import os
import signal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from vaeflow import data, training
from vaeflow.losses import Aux

CONFIG = training.TrainConfig(
    steps=20, batch_size=8, checkpoint_every=5, evaluate_every=3, log_every=2, learning_rate=0.01
)


class Killed(Exception):
    """Stands for the end of a process."""


STEPS = {}
"""The compiled step of each configuration: runs of one configuration compile it once."""


def fit(path, config=CONFIG, loss=toy.loss, **hooks):
    directory = training.open_run_directory(str(path), config)
    make = training.loop.make_train_step
    key = (dataclasses.replace(config, patience=0), loss, *hooks.get("weights", {}).items())

    def compiled(*arguments, **options):
        if key not in STEPS:
            STEPS[key] = make(*arguments, **options)
        return STEPS[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.loop, "make_train_step", compiled)
        return training.train(
            toy.Model(),
            loss,
            toy.batches(config),
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


def test_killed_run_resumes_bit_for_bit(tmp_path):
    plotted = []

    def figures(step, variables):
        plotted.append(step)

    def killing(step, variables):
        if step == 12:
            raise Killed
        return valley(step, variables)

    hooks = {"figures": figures, "best": "distance"}
    straight = fit(tmp_path / "straight", evaluate=valley, **hooks)
    assert plotted == [1, 2, 4, 8, 16, 20]
    with pytest.raises(Killed):
        fit(tmp_path / "killed", evaluate=killing, **hooks)
    plotted.clear()
    resumed = fit(tmp_path / "killed", evaluate=valley, **hooks)
    assert plotted == [16, 20]

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


def test_best_variables_are_those_of_the_best_step(tmp_path):
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


@pytest.mark.slow
@pytest.mark.optimized
def test_scanned_run_equals_unscanned_and_traces_once(tmp_path):
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


@pytest.mark.parametrize("scan_steps", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_early_stopping_is_the_same_after_resuming(tmp_path, capsys, scan_steps):
    """The evaluation of step 9 is the best: two later ones, at 12 and 15, are one too many."""
    config = dataclasses.replace(CONFIG, patience=2, scan_steps=scan_steps, schedule="cosine")
    plotted, evaluated = [], []

    def figures(step, variables):
        plotted.append(step)

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
    assert (plotted, evaluated) == ([1, 2, 4, 8, 15], [3, 6, 9, 12, 15])
    assert (tmp_path / "straight" / "checkpoints" / "15").is_dir()
    message = "training ended early, after step 15: distance is best after step 9"
    assert message in capsys.readouterr().err
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
    full = fit(tmp_path / "full", longer, evaluate=valley, best="distance")
    assert (full.step, full.state.step) == (9, 20)
    toy.equal(full.variables, straight.variables)


def test_improvement_resets_patience(tmp_path):
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


class Linear(nn.Module):
    """A number for each image."""

    @nn.compact
    def __call__(self, images):
        return nn.Dense(1)(images.reshape(len(images), -1) / 255.0)


def square(model, variables, batch, rng, *, axis, train):
    """Squares of the outputs of `Linear`."""
    return jnp.mean(model.apply(variables, batch["image"]) ** 2), Aux({}, {})


def test_default_optimizer_and_initial_variables(tmp_path):
    config = training.TrainConfig(steps=3, batch_size=8, seed=4)
    batches = toy.batches(config)

    def initialize():
        images = next(batches.stream(0))["image"]
        return jax.jit(Linear().init)(jax.random.key(4), images)

    options = {"initialize": initialize, "optimizers": training.make_optimizer(config)}
    results = []
    for name, arguments in {"default": {}, "explicit": options}.items():
        directory = training.open_run_directory(str(tmp_path / name), config)
        results.append(training.train(Linear(), square, batches, config, directory, **arguments))
    toy.equal(*results)


def test_default_initialize_takes_the_images_of_both_domains_and_nothing_without_data():
    pair = training.UnpairedBatches(toy.source(), toy.source(), 8, seed=0)
    assert [x.shape for x in training.loop._first_inputs(pair)] == [(8, 4, 6, 1)] * 2
    assert training.loop._first_inputs(training.IndexBatches(8)) == []
    codes = data.Source(lambda rows: {"a": rows, "b": rows, "index": rows}, np.arange(20))
    with pytest.raises(ValueError, match=r"initialize is needed .*, got \['a', 'b'\]"):
        training.loop._first_inputs(training.Batches(codes, 8, 0))


def test_metrics_are_read_one_step_late(tmp_path, monkeypatch):
    order = []
    make = training.loop.make_train_step

    def making(*arguments, **options):
        step = make(*arguments, **options)

        def watched(state, batch):
            order.append("dispatch")
            return step(state, batch)

        return watched

    record = training.loop.Loop.record

    def recording(self, *arguments):
        order.append("read")
        return record(self, *arguments)

    monkeypatch.setattr(training.loop, "make_train_step", making)
    monkeypatch.setattr(training.loop.Loop, "record", recording)
    fit(tmp_path, training.TrainConfig(steps=4, batch_size=8))
    assert order == ["dispatch", "dispatch", "read", "dispatch", "read", "dispatch", "read", "read"]


@pytest.mark.parametrize("scan_steps", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_non_finite_loss_raises_and_saves_the_last_good_state(tmp_path, scan_steps):
    config = training.TrainConfig(
        steps=20, batch_size=8, scan_steps=scan_steps, checkpoint_every=5, log_every=1
    )

    def weight(step):
        return jnp.where(step == 6, jnp.nan, 1.0)

    for _ in range(2):  # the same command meets the same step again
        with pytest.raises(training.NonFiniteError, match="step 7: loss is nan, gradient_norm is"):
            fit(tmp_path / "broken", config, weights={"weight": weight})
        assert (tmp_path / "broken" / "checkpoints" / "6").is_dir()
    directory = training.open_run_directory(str(tmp_path / "broken"), config)
    assert [line["step"] for line in directory.read_metrics()] == [1, 2, 3, 4, 5, 6]
    full = fit(tmp_path / "full", config, weights={"weight": 1.0})
    mended = fit(tmp_path / "broken", config, weights={"weight": 1.0})
    toy.equal(mended, full)
    assert mended.state.step == 20


@pytest.mark.usefixtures("heeded_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_saves_and_interrupts(tmp_path, straight, number):
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


def test_signal_between_checkpoints_saves_and_interrupts(tmp_path, straight, monkeypatch):
    record = training.loop.Loop.record

    def recording(self, first, count, metrics):
        if first == 5:  # read while step 7 is under way
            os.kill(os.getpid(), signal.SIGTERM)
        return record(self, first, count, metrics)

    with monkeypatch.context() as patch:
        patch.setattr(training.loop.Loop, "record", recording)
        with pytest.raises(training.Interrupted, match="stopped at step 7, which is saved"):
            fit(tmp_path)
    toy.equal(fit(tmp_path), straight)


def test_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, straight, capsys):
    fit(tmp_path)
    for file in (tmp_path / "checkpoints" / "20" / "tree").glob("**/d/*"):
        file.write_bytes(b"")
    capsys.readouterr()
    toy.equal(fit(tmp_path), straight)
    assert "warning: checkpoint 20 can't be read and is set aside, 15" in capsys.readouterr().err
