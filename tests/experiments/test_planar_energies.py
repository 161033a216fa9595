"""Planar flows on the plane end to end, at a tiny size, and errors for bad options."""

from __future__ import annotations

import json
import math
import pathlib

import numpy as np
import pytest
from PIL import Image

from experiments import _cli, planar_energies

TINY = ["--train.steps", "4", "--train.scan-steps", "2", "--train.batch-size", "8"]
SMALL = [*TINY, "--samples", "200", "--points", "12", "--model.depths", "3"]


def execute(*arguments):
    return _cli.execute("planar_energies", planar_energies.PRESETS, planar_energies.run, arguments)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.figures
def test_flows_are_trained_measured_and_plotted(capsys):
    # Two energies without splines, which are tested below.
    options = ["--workdir", "run", *SMALL, "--model.spline-steps", "0"]
    assert execute(*options, "--energies", "wave", "ring") == 0
    report = json.loads(pathlib.Path("run/report.json").read_text())
    found = report["metrics"]
    assert all(math.isfinite(value) for value in found.values())
    assert found["log_normalizer_ring"] == pytest.approx(1.8775, abs=1e-3)
    for energy in ("wave", "ring"):
        assert 0 < found[f"kl_{energy}_planar_3"] < 10
        assert 0 < found[f"effective_sample_size_{energy}_planar_3"] < 1
    for figure in ("densities", "grids"):
        with Image.open(f"run/figures/{figure}.png") as image:
            assert np.asarray(image).std() > 10
    assert "kl_wave_planar_3: " in capsys.readouterr().out


@pytest.mark.slow
def test_a_longer_training_comes_closer():
    options = [*SMALL, "--energies", "ring", "--train.steps"]
    closeness = []
    for steps in ("2", "400"):
        assert execute("--workdir", steps, *options, steps) == 0
        report = json.loads((pathlib.Path(steps) / "report.json").read_text())
        closeness.append(report["metrics"]["kl_ring_planar_3"])
        assert 0 < report["metrics"]["kl_ring_spline"] < 10
    assert closeness[1] < 0.5 * closeness[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.depths", "0"], "model.depths must each be at least 1, got (0,)"),
        (["--annealing", "2"], "annealing must be in [0, 1], got 2"),
        (["--model.spline-learning-rate", "0"], "model.spline_learning_rate must be above 0"),
        (["--energies", "ring", "ring"], "energies must be different names"),
    ],
)
def test_values_out_of_range_are_one_line(options, message, capsys):
    with pytest.raises(SystemExit) as caught:
        execute("--workdir", "run", *options)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
