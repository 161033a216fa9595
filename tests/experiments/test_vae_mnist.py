"""Variational auto-encoders of digits end to end, at a tiny size."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import _cli, _figures, control, vae_mnist
from vaeflow import sharing

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
    return _cli.execute("vae_mnist", vae_mnist.PRESETS, vae_mnist.run, arguments)


def report():
    return json.loads(pathlib.Path("run/report.json").read_text())


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--preset", "vae"], marks=pytest.mark.figures),
        pytest.param(["--preset", "dreg", "--objective.samples", "3"], marks=pytest.mark.slow),
        pytest.param(
            ["--preset", "planar", "--model.posterior-steps", "2"], marks=pytest.mark.slow
        ),
        pytest.param(["--preset", "vamp", "--model.components", "5"], marks=pytest.mark.slow),
        pytest.param(["--preset", "iwae", "--objective.samples", "3"], marks=pytest.mark.slow),
        pytest.param(
            ["--preset", "sylvester", "--model.posterior-steps", "2"], marks=pytest.mark.slow
        ),
        pytest.param(["--preset", "iaf", "--model.posterior-steps", "2"], marks=pytest.mark.slow),
        pytest.param(["--preset", "flow-prior"], marks=pytest.mark.slow),
        pytest.param(["--preset", "autoregressive-prior"], marks=pytest.mark.slow),
        pytest.param(["--preset", "conditional", "--model.classes", "4"], marks=pytest.mark.slow),
    ],
    ids=lambda options: options[1],
)
def test_presets_are_trained_measured_and_plotted(options):
    assert execute("--workdir", "run", *options, *SMALL, "npz:digits.npz") == 0
    found = report()["metrics"]
    assert all(math.isfinite(value) for value in found.values())
    assert found["active_units"] + found["collapsed_units"] == 3
    # Noise has one bit for each pixel; the model is hardly trained.
    assert 0.9 < found["bits_per_dim"] < 1.3
    assert found["negative_log_likelihood"] < found["negative_elbo"] + 0.5
    for name in FIGURES:
        assert pathlib.Path("run/figures", name).exists()
        if options[1] == "vae":
            with Image.open(f"run/figures/{name}") as image:
                assert np.asarray(image).std() > 1


@pytest.mark.slow
def test_levels_are_measured_separately():
    options = ["--preset", "hierarchical", "--model.levels", "3", "2", "1", *SMALL]
    options += ["npz:digits.npz", "--objective.warmup", "0.5", "--objective.cycles", "2"]
    assert execute("--workdir", "run", *options, "--objective.free-bits", "0.1") == 0
    found = report()["metrics"]
    numbered = [f"level_{number}" for number in (1, 2, 3)]
    assert sum(found[f"kl/{name}"] for name in numbered) == pytest.approx(found["kl"])
    assert min(found[f"kl/{name}"] for name in numbered) > 0
    active = [found[f"active_units/{name}"] for name in numbered]
    assert sum(active) == found["active_units"]
    assert found["active_units"] + found["collapsed_units"] == 6
    lines = pathlib.Path("run/metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert {"kl/level_1", "kl/level_3"} <= set().union(*records)


def test_there_is_a_column_for_each_class():
    options = ["--preset", "conditional", "--model.classes", "4", *SMALL, "npz:digits.npz"]
    config = _cli.parse("vae_mnist", vae_mnist.PRESETS, options)[-1]
    model = vae_mnist.build(config, (6, 6, 1))
    images = np.zeros((8, 6, 6, 1), np.uint8)
    variables = jax.jit(model.init)(jax.random.key(0), images, context=np.arange(8) % 4)
    variables = jax.tree.map(np.array, variables)
    # A decoder that shows the label alone: class c is c/4 grey, whatever the noise.
    parameters = jax.tree.map(np.zeros_like, variables["params"]["decoder"])
    kernels = [parameters["network"][f"Dense_{number}"]["kernel"] for number in range(3)]
    logits = np.array([-2.0, -1.0, 0.0, 3.0])
    kernels[0][3:, 0] = logits / 10
    kernels[1][0, 0] = 1.0
    kernels[2][0] = 10.0
    variables["params"]["decoder"] = parameters
    table = _figures.sample_table(model, variables)
    assert table.shape == (8, 4, 6, 6, 1)
    grey = 255 / (1 + np.exp(-10 * np.tanh(np.tanh(logits / 10))))
    for column, shade in enumerate(grey):
        np.testing.assert_allclose(table[:, column], shade, atol=1)
    # One that ignores it: what differs is the noise, of which a row has its own.
    kernels[0][3:] = 0.0
    kernels[0][:3, 0] = 1.0
    table = _figures.sample_table(model, variables)
    np.testing.assert_array_equal(table, np.broadcast_to(table[:, :1], table.shape))
    assert len(np.unique(table[:, 0, 0, 0, 0])) > 2


@pytest.mark.parametrize("preset", vae_mnist.PRESETS)
def test_configurations_come_back_from_json(preset):
    config = vae_mnist.PRESETS[preset].config
    values = json.loads(json.dumps(dataclasses.asdict(config)))
    assert sharing.from_json(vae_mnist.Config, values) == config


def test_schedules_of_the_kl():
    config = vae_mnist.ObjectiveConfig("elbo", beta=2.0, warmup=0.5, cycles=4)
    beta = vae_mnist.make_loss(config, 800)[1]["beta"]
    found = [float(beta(step)) for step in (0, 50, 100, 199, 200, 250, 799, 800, 5000)]
    np.testing.assert_allclose(found, [0, 1, 2, 2, 0, 1, 2, 2, 2], rtol=1e-5)
    config = vae_mnist.ObjectiveConfig("elbo", beta=4.0)
    assert float(vae_mnist.make_loss(config, 10)[1]["beta"](0)) == 4
    config = vae_mnist.ObjectiveConfig("elbo", warmup=0.2)
    beta = vae_mnist.make_loss(config, 100)[1]["beta"]
    np.testing.assert_allclose([float(beta(step)) for step in (0, 10, 20, 99)], [0, 0.5, 1, 1])


@pytest.mark.slow
def test_clusters_of_a_mixture_are_compared_with_labels():
    options = ["--preset", "mixture", "--model.components", "4", *SMALL, "npz:digits.npz"]
    assert execute("--workdir", "run", *options, "--model.latents", "2") == 0
    # Of six test images.
    right = 6 * report()["metrics"]["cluster_accuracy"]
    assert right == pytest.approx(round(right))
    assert 1 <= round(right) <= 6
    assert pathlib.Path("run/figures/manifold.png").exists()


@pytest.mark.figures
@pytest.mark.slow
def test_an_auto_encoder_is_compared_with_a_vae(capsys):
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


@pytest.mark.slow
def test_the_last_line_reports_collapse(capsys):
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
        (["--preset", "iwae", "--objective.beta", "2"], "are for the ELBO, got 2.0, 0.0 and 0.0"),
        (["--objective.cycles", "2"], "and 1 without a warmup, got 2 with warmup 0.0"),
        (["--objective.free-bits", "-1"], "objective.free_bits must be at least 0, got -1.0"),
        (["--model.levels", "3", "0"], "model.levels must each be at least 1, got (3, 0)"),
        (["--model.levels", "3", "--model.prior", "flow"], "got diagonal and flow"),
        (["--model.classes", "9", "--model.prior", "vamp"], "exclude each other, got 9"),
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


def test_other_numbers_of_classes_are_an_error(capfd):
    options = ["--preset", "conditional", *SMALL, "npz:digits.npz"]
    assert execute("--workdir", "run", *options) == 1
    assert "model.classes must be that of the data, 4, got 10" in capfd.readouterr().err
