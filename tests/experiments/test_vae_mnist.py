"""Variational auto-encoders of digits end to end, at a tiny size."""

from __future__ import annotations

import json
import math
import pathlib

import numpy as np
import pytest
from PIL import Image

from experiments import common, control, vae_mnist

TINY = ["--train.steps", "4", "--train.scan-steps", "2", "--train.batch-size", "8"]
FIGURES = (
    "samples.png",
    "reconstructions.png",
    "interpolations.png",
    "traversals.png",
    "traversals.gif",
    "aggregate_posterior.png",
    "training_curve.png",
)
SMALL = [*TINY, "--importance-samples", "100", "--model.latents", "3", "--data.source"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.random.RandomState(0).randint(0, 256, (60, 6, 6, 1)).astype(np.uint8)
    np.savez("digits.npz", image=images, label=np.arange(60, dtype=np.int32) % 4)


def execute(*arguments):
    return common.execute("vae_mnist", vae_mnist.PRESETS, vae_mnist.run, arguments)


def report():
    return json.loads(pathlib.Path("run/report.json").read_text())


@pytest.mark.parametrize(
    "options",
    [
        ["--preset", "vae"],
        ["--preset", "dreg", "--objective.samples", "3"],
        ["--preset", "planar", "--model.posterior-steps", "2"],
        ["--preset", "vamp", "--model.components", "5"],
        pytest.param(["--preset", "iwae", "--objective.samples", "3"], marks=pytest.mark.slow),
        pytest.param(
            ["--preset", "sylvester", "--model.posterior-steps", "2"], marks=pytest.mark.slow
        ),
        pytest.param(["--preset", "iaf", "--model.posterior-steps", "2"], marks=pytest.mark.slow),
        pytest.param(["--preset", "flow-prior"], marks=pytest.mark.slow),
    ],
    ids=lambda options: options[1],
)
def test_presets_are_trained_measured_and_drawn(options):
    assert execute("--workdir", "run", *options, *SMALL, "npz:digits.npz") == 0
    found = report()["metrics"]
    assert all(math.isfinite(value) for value in found.values())
    assert found["active_units"] + found["collapsed_units"] == 3
    # Noise has one bit for each pixel; the model is hardly trained.
    assert 0.9 < found["bits_per_dim"] < 1.3
    assert found["negative_log_likelihood"] < found["negative_elbo"] + 0.5
    for name in FIGURES:
        with Image.open(f"run/figures/{name}") as image:
            assert np.asarray(image).std() > 1
    assert execute("--workdir", "run", *options, *SMALL, "npz:digits.npz") == 0


def test_clusters_of_a_mixture_are_held_against_labels():
    options = ["--preset", "mixture", "--model.components", "4", *SMALL, "npz:digits.npz"]
    assert execute("--workdir", "run", *options, "--model.latents", "2") == 0
    # Of six test images.
    right = 6 * report()["metrics"]["cluster_accuracy"]
    assert right == pytest.approx(round(right))
    assert 1 <= round(right) <= 6
    with Image.open("run/figures/manifold.png") as image:
        assert np.asarray(image).std() > 1


def test_an_auto_encoder_is_trained_beside_a_variational_one(capsys):
    options = ["--preset", "ae", *SMALL, "npz:digits.npz"]
    assert execute("--workdir", "run", *options) == 0
    found = report()["metrics"]
    assert found["reconstruction"] == pytest.approx(36 * math.log(2), rel=0.3)
    assert found["vae_negative_elbo"] == pytest.approx(
        found["vae_reconstruction"] + found["vae_kl"], rel=1e-6
    )
    for name in ("samples", "reconstructions", "interpolations", "latents", "training_curve"):
        with Image.open(f"run/figures/{name}.png") as image:
            assert np.asarray(image).std() > 1
    # Both are runs whose latents can be set.
    for folder in ("run", "run/vae"):
        assert control.main([folder, "--set", "z1=2", "--out", f"{folder}/set.png"]) == 0
    assert control.main(["run", "--set", "z1=2", "--prior", "0", "--out", "set.png"]) == 2
    message = "error: --prior: the model of run has no prior; use --image"
    assert capsys.readouterr().err.splitlines()[-1] == message


def test_collapse_is_said_in_the_last_line(capsys):
    options = ["--preset", "beta", "--objective.beta", "100", *SMALL, "npz:digits.npz"]
    options += ["--train.steps", "150", "--train.learning-rate", "0.03"]
    assert execute("--workdir", "run", *options) == 0
    assert report()["remark"] == "3 of 3 latents have collapsed to the prior"
    assert report()["metrics"]["collapsed_units"] == 3
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith("are in run; 3 of 3 latents have collapsed to the prior")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--objective.samples", "5"], "objective.samples must be at least 1, and 1 for the ELBO"),
        (["--preset", "iwae", "--objective.beta", "2"], "are for the ELBO, got 2.0 and 0.0"),
        (["--importance-samples", "150"], "importance_samples must be a multiple of 100, got 150"),
        (["--model.latents", "0"], "model.latents must be at least 1, got 0"),
        (
            ["--preset", "ae", "--model.prior", "vamp"],
            "model.prior is for models with a posterior, got vamp with posterior none",
        ),
        (["--objective.warmup", "2"], "objective.warmup must be in [0, 1], got 2.0"),
    ],
)
def test_bad_options_are_one_clear_line(options, message, capfd):
    with pytest.raises(SystemExit) as stop:
        execute("--workdir", "run", *options)
    assert stop.value.code == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
