"""Densities of tables end to end: exact entropies, units, resumption, and errors for bad files."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
import scipy.stats
from PIL import Image

import vaeflow as vf
from experiments import _cli, tabular_density
from vaeflow import data

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = ["--model.steps", "2", "--model.width", "8", "--train.steps", "6"]
TINY += ["--train.evaluate-every", "2", "--train.scan-steps", "2", "--train.warmup-steps", "0"]


def execute(*arguments):
    return _cli.execute("tabular_density", tabular_density.PRESETS, tabular_density.run, arguments)


def read_report(workdir="run"):
    return json.loads((pathlib.Path(workdir) / "report.json").read_text())


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


MEAN = np.array([20.0, -0.001, 5.0])
MIXING = np.array([[100.0, 0, 0], [5e-4, 1e-3, 0], [-3.0, 2.0, 2.0]])
"""Columns of very different units, correlated by up to 0.73."""
LOG_DET = np.log(np.diagonal(MIXING)).sum()
ENTROPY = 1.5 * math.log(2 * math.pi * math.e) + LOG_DET


def save_gaussian(path="gaussian.npz", dtype=np.float64, scale=1.0):
    random = np.random.default_rng(0)
    rows = MEAN + random.normal(size=(6000, 3)) @ MIXING.T
    train, validation, test = np.split((scale * rows).astype(dtype), [4000, 5000])
    np.savez(path, train=train, val=validation, test=test)
    return test


@pytest.mark.figures
def test_the_embedded_table_is_trained_measured_and_plotted(capsys):
    assert execute("--workdir", "run", *TINY) == 0
    report = read_report()
    found = report["metrics"]
    assert all(math.isfinite(value) for value in found.values())
    # The same split for every density, whatever was trained.
    assert found["test_log_likelihood_diagonal_gaussian"] == pytest.approx(12.97, abs=0.02)
    assert found["test_log_likelihood_shrunk_gaussian"] == pytest.approx(26.69, abs=0.02)
    assert found["test_log_likelihood"] > 8
    assert found["validation_log_likelihood"] > 8
    assert 0.5 < found["test_log_likelihood_two_standard_errors"] < 10
    assert found["round_trip_error"] < 1e-3
    for figure in ("training_curve", "pairs"):
        with Image.open(f"run/figures/{figure}.png") as image:
            assert np.asarray(image).std() > 10
    out = capsys.readouterr().out
    assert "embedded:nuclei: 20 columns, 455 train / 57 validation / 57 test" in out

    described, variables = vf.load("run/model.safetensors")
    config = vf.sharing.from_json(tabular_density.Config, described["config"])
    model = tabular_density.build(config, tuple(described["shape"]))
    test = data.stack(data.open_table(config.data).test)["vector"]
    values = jax.jit(lambda own: model.apply(own, test, method="log_prob"))(variables)
    assert np.mean(values) == pytest.approx(found["test_log_likelihood"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("flow", ["maf", "real-nvp", "spline-coupling", "spline-autoregressive"])
def test_a_gaussian_is_learned_to_its_entropy(flow):
    """The excess over the exact density is estimated on the same rows, without their noise."""
    test = save_gaussian()
    steps = ["--train.steps", "600", "--train.scan-steps", "100", "--train.evaluate-every", "100"]
    options = ["--model.steps", "2", "--model.width", "16", "--train.learning-rate", "0.01"]
    options += ["--model.flow", flow, "--train.batch-size", "128", "--train.weight-decay", "0"]
    options += ["--model.bins", "4", "--train.schedule", "cosine", "--train.patience", "0"]
    assert execute("--workdir", "run", "--data.source", "npz:gaussian.npz", *options, *steps) == 0
    found = read_report()["metrics"]
    noise = np.linalg.solve(MIXING, (test - MEAN).T)
    exact = np.mean(scipy.stats.norm.logpdf(noise).sum(0)) - LOG_DET
    assert exact == pytest.approx(-ENTROPY, abs=0.1)
    # From 1,000 rows the estimate of a KL near zero may fall below it.
    assert -0.01 < exact - found["test_log_likelihood"] < 0.03
    assert found["test_log_likelihood_shrunk_gaussian"] == pytest.approx(exact, abs=0.01)
    # Of a Gaussian of three columns -log p has a variance of 3 / 2.
    error = found["test_log_likelihood_two_standard_errors"]
    assert error == pytest.approx(2 * math.sqrt(1.5 / 1000), rel=0.1)


@pytest.mark.slow
def test_the_units_of_a_file_shift_the_figure_exactly():
    """A power of two scales without rounding: the same run, log 1024 a column lower."""
    for name, scale in (("plain", 1.0), ("scaled", 1024.0)):
        save_gaussian(f"{name}.npz", np.float32, scale)
        options = ["--data.source", f"npz:{name}.npz", "--model.flow", "maf"]
        assert execute("--workdir", name, *TINY, *options) == 0
    plain, scaled = (read_report(name)["metrics"] for name in ("plain", "scaled"))
    for name in ("test_log_likelihood", "validation_log_likelihood", "train_log_likelihood"):
        assert scaled[name] == pytest.approx(plain[name] - 3 * math.log(1024), abs=1e-4)


def test_figures_do_not_depend_on_the_size_of_batches():
    config = tabular_density.PRESETS["nuclei"].config
    table = data.open_table(config.data)
    model = tabular_density.build(config, table.shape)
    variables = jax.jit(model.init)(jax.random.key(0), data.stack(table.train)["vector"])
    by_size = [
        tabular_density.log_probs(model, variables, table.test, batch_size=size)
        for size in (1024, 10)
    ]
    assert all(values.shape == (57,) for values in by_size)
    np.testing.assert_allclose(by_size[1], by_size[0], rtol=1e-5)


KILLED = """
import os, signal, sys
from experiments import _cli, tabular_density
log_probs = tabular_density.log_probs
calls = []
def killing(*arguments):
    calls.append(1)
    if len(calls) == {calls}:
        os.kill(os.getpid(), signal.SIGKILL)
    return log_probs(*arguments)
tabular_density.log_probs = killing
_cli.main("tabular_density", tabular_density.PRESETS, tabular_density.run)
"""


@pytest.mark.slow
def test_a_killed_run_stops_early_at_the_same_step(tmp_path):
    """At so high a learning rate validation soon gets worse, and the kill is amid the wait."""
    options = [*TINY, "--train.steps", "60", "--train.learning-rate", "0.3", "--model.flow", "maf"]
    options += ["--train.ema-decay", "0", "--train.patience", "3", "--train.checkpoint-every", "4"]
    assert execute("--workdir", "straight", *options) == 0
    lines = (pathlib.Path("straight") / "metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])["step"]
    best = read_report("straight")["step"]
    assert last == best + 6
    assert last < 60

    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    code = KILLED.format(calls=last // 2 - 1)  # the evaluation before the last but one
    command = [sys.executable, "-c", code, "--workdir", "killed", *options]
    ended = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not (tmp_path / "killed" / "report.json").exists()
    assert execute("--workdir", "killed", *options) == 0
    straight, killed = read_report("straight"), read_report("killed")
    assert killed["step"] == straight["step"]
    assert killed["metrics"] == straight["metrics"]
    models = [pathlib.Path(name, "model.safetensors") for name in ("straight", "killed")]
    trees = [vf.load(path)[1] for path in models]
    for one, other in zip(*map(jax.tree.leaves, trees), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_published_presets_need_their_file_and_name_their_figures(capfd):
    assert execute("--preset", "miniboone", "--workdir", "run") == 1
    *_, line = capfd.readouterr().err.splitlines()
    assert line == "error: source='npz:miniboone.npz': there is no such file"
    expected = tabular_density.PRESETS["miniboone"].expected
    assert expected["test_log_likelihood"].value == -9.22
    assert expected["test_log_likelihood_naf"].source.startswith("NAF, Huang et al. 2018")
    rows = np.random.default_rng(0).normal(size=(300, 43)).astype(np.float32)
    np.savez("miniboone.npz", train=rows, validation=rows[:40], test=rows[:40])
    small = [*TINY, "--model.steps", "1", "--preset", "miniboone"]
    assert execute("--workdir", "run", *small) == 0
    assert read_report()["expected"] == {}  # of fewer steps
    preset = tabular_density.PRESETS["miniboone"]
    config = dataclasses.replace(preset.config, data=data.TableConfig("npz:there/miniboone.npz"))
    assert preset.comparable(config)["test_log_likelihood_maf"]["value"] == -12.24
    config = dataclasses.replace(config, data=data.TableConfig("npz:power.npz"))
    assert preset.comparable(config) == {}


ROWS = np.random.default_rng(0).normal(size=(90, 4))
GOOD = {"train": ROWS[:70], "val": ROWS[70:80], "test": ROWS[80:]}
BAD_INPUT = {
    "unknown source": ("elephants", {}, "got 'elephants'"),
    "missing array": ("npz:there.npz", {"train": ROWS}, "must be train, validation or val"),
    "integers": ("npz:there.npz", GOOD | {"train": np.eye(70, dtype=int)}, "int64"),
    "objects": ("npz:there.npz", GOOD | {"test": ROWS.astype(object)}, "never unpickled"),
    "not finite": ("npz:there.npz", GOOD | {"test": ROWS * np.inf}, "row 0, column 0"),
    "columns": ("npz:there.npz", GOOD | {"test": ROWS[:, 1:]}, "one number of columns"),
    "too few rows": ("npz:there.npz", GOOD | {"train": ROWS[:20]}, "got 64"),
    "one column": ("npz:there.npz", {k: v[:, :1] for k, v in GOOD.items()}, "at least 2 channels"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_clear_line(case, capfd):
    source, arrays, message = BAD_INPUT[case]
    np.savez("there.npz", **arrays)
    coupling = ["--model.flow", "spline-coupling"]
    assert execute("--workdir", "run", "--data.source", source, *TINY, *coupling) == 1
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]


@pytest.mark.slow
def test_one_column_is_enough_where_the_flow_allows_it():
    np.savez("there.npz", **{name: table[:, :1] for name, table in GOOD.items()})
    options = ["--data.source", "npz:there.npz", "--model.flow", "maf"]
    assert execute("--workdir", "run", *TINY, *options) == 0
    assert [path.name for path in pathlib.Path("run/figures").iterdir()] == ["training_curve.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.steps", "0"], "model.steps must be at least 1, got 0"),
        (["--model.bins", "0"], "model.bins must be at least 1, got 0"),
        (["--model.bound", "0"], "model.bound must be above 0, got 0"),
        (["--train.evaluate-every", "0"], "train.patience must be 0 without evaluate_every"),
    ],
)
def test_values_out_of_range_are_one_line(options, message, capsys):
    with pytest.raises(SystemExit) as caught:
        execute("--workdir", "run", *options)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
