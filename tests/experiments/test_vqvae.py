"""Auto-encoders with codes and their priors end to end, at a tiny size."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

import vaeflow as vf
from experiments import _cli, _evaluation, vqvae2_celeba, vqvae_mnist
from experiments.export import functions_of, open_run
from vaeflow import data

EXPERIMENTS = {"vqvae_mnist": vqvae_mnist, "vqvae2_celeba": vqvae2_celeba}
FIGURES = (
    "code_usage",
    "reconstructions",
    "samples",
    "samples_by_temperature",
    "nearest_training_images",
    "training_curve",
)
TINY = [
    *("--model.channels", "4", "--model.codes", "8", "--model.latents", "4", "--model.hidden", "4"),
    *("--prior.channels", "8", "--prior.blocks", "1", "--prior.residuals", "1"),
    *("--prior.lower-blocks", "1", "--data.source", "npz:images.npz"),
    *(
        option
        for name in ("train", "prior-train", "classifier-train")
        for option in (
            *(f"--{name}.steps", "4", f"--{name}.scan-steps", "2", f"--{name}.batch-size", "8"),
            *(f"--{name}.evaluate-every", "2", f"--{name}.checkpoint-every", "2"),
            *(f"--{name}.log-every", "1"),
        )
    ),
]
REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.random.RandomState(0).randint(0, 256, (60, 6, 6, 1)).astype(np.uint8)
    np.savez("images.npz", image=images)
    np.savez("digits.npz", image=images, label=np.arange(60, dtype=np.int32) % 4)


def execute(name, workdir, *options):
    arguments = ["--workdir", workdir, *TINY, *options]
    presets, stages = EXPERIMENTS[name].PRESETS, vqvae_mnist.STAGES
    later = EXPERIMENTS[name].LATER
    return _cli.execute(name, presets, EXPERIMENTS[name].run, arguments, stages, later)


def report(workdir):
    return json.loads(pathlib.Path(workdir, "report.json").read_text())


@pytest.mark.slow
@pytest.mark.figures
@pytest.mark.parametrize(("name", "levels"), [("vqvae_mnist", 1), ("vqvae2_celeba", 2)])
def test_stages_run_at_once_or_one_by_one_with_the_same_result(name, levels, capsys):
    names = _evaluation.level_names(levels)
    for number, stage in enumerate(vqvae_mnist.STAGES):
        for later in vqvae_mnist.STAGES[number + 1 :]:
            assert execute(name, "parts", "--stage", later) == 1
            assert f"stage {stage} isn't done yet: it comes first" in capsys.readouterr().err
        assert execute(name, "parts", "--stage", stage) == 0
    assert execute(name, "whole") == 0
    found = report("whole")["metrics"]
    assert found == report("parts")["metrics"]
    assert all(math.isfinite(value) for value in found.values())
    nats = found["reconstruction"] + sum(found[f"code_nats/{level}"] for level in names)
    assert found["bits_per_dim"] == pytest.approx(nats / (36 * math.log(2)))
    assert "is a bound" in report("whole")["remark"]
    assert report("whole")["step"] in (2, 4)
    assert all(found[f"prior_step/{level}"] in (2, 4) for level in names)
    curves = [f"prior_curve_{level}" for level in names]
    for figure in (*FIGURES, *curves):
        with Image.open(f"whole/figures/{figure}.png") as image:
            assert np.asarray(image).std() > 1


@pytest.mark.slow
def test_labels_condition_the_priors_and_samples_are_scored():
    options = ["--data.source", "npz:digits.npz", "--prior.classes", "4"]
    assert execute("vqvae_mnist", "run", *options) == 0
    found = report("run")["metrics"]
    assert {"samples/confidence", "held_out/frechet_distance"} <= set(found)
    assert pathlib.Path("run/classifier/model.safetensors").exists()
    opened = open_run("run")
    assert list(functions_of(opened)) == ["encode_codes", "decode", "sample", "bound"]
    assert (
        execute("vqvae_mnist", "other", "--prior.classes", "3", "--data.source", "npz:digits.npz")
        == 1
    )


def test_codes_are_those_of_the_model_and_survive_a_file():
    assert execute("vqvae2_celeba", "run", "--stage", "codes", "--data.flip") == 1
    assert execute("vqvae2_celeba", "run", "--stage", "auto-encoder", "--data.flip") == 0
    assert execute("vqvae2_celeba", "run", "--stage", "codes", "--data.flip") == 0
    codes = _evaluation.load_codes(pathlib.Path("run/codes.npz"), ("top", "bottom"))
    dataset = data.open_dataset(data.DataConfig("npz:images.npz"))
    presets = vqvae2_celeba.PRESETS
    config = _cli.parse("vqvae2_celeba", presets, TINY, vqvae_mnist.STAGES).config
    model = vqvae2_celeba.build(config, dataset.shape).auto_encoder
    variables = vf.sharing.load("run/auto_encoder.safetensors")[1]
    images = data.stack(dataset.train)["image"]
    both = np.concatenate([images, images[:, :, ::-1]])
    encode = jax.jit(lambda own: model.apply(own, both, jax.random.key(0), method="encode"))
    found = jax.device_get(encode(variables))
    train = codes.splits["train"]
    for name, maps in zip(("top", "bottom"), found, strict=True):
        np.testing.assert_array_equal(train[name], maps)
        assert codes.counts(8)[name].sum() == maps.size
    assert len(codes.splits["test"]["top"]) == len(dataset.test)


@pytest.mark.slow
def test_another_configuration_is_an_error_once_there_are_steps(capsys):
    # The program that another test compiles.
    assert execute("vqvae2_celeba", "run", "--stage", "auto-encoder", "--data.flip") == 0
    assert execute("vqvae2_celeba", "run", "--data.flip", "--model.codes", "9") == 1
    assert "model.codes: 8 there, 9 here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--train.batch-size", "49"], "train.batch_size must be at most 48"),
        (["--prior-train.batch-size", "49"], "prior_train.batch_size must be at most 48"),
        (["--data.flip", "--prior-train.batch-size", "97"], "prior_train.batch_size must be at mo"),
        (["--prior-train.accumulate", "3"], "prior_train.batch_size must be divisible by"),
        (
            ["--data.source", "npz:digits.npz", "--classifier-train.batch-size", "49"],
            "classifier_train.batch_size must be at most 48",
        ),
        (["--prior.classes", "4"], "prior.classes must be that of the data, None, got 4"),
    ],
)
def test_options_of_all_stages_are_checked_against_the_data_first(options, message, capsys):
    assert execute("vqvae_mnist", "run", *options) == 1
    assert f"error: {message}" in capsys.readouterr().err
    assert not pathlib.Path("run/checkpoints").exists()


@pytest.mark.slow
def test_later_stages_may_be_corrected_and_are_of_the_same_data(capsys):
    first = ("vqvae_mnist", "run", "--stage")
    corrected = ("--prior-train.steps", "2", "--prior.blocks", "2")
    assert execute(*first, "auto-encoder") == 0
    images = dict(np.load("images.npz"))
    np.savez("images.npz", image=255 - images["image"])
    assert execute(*first, "codes", *corrected) == 1
    refused = capsys.readouterr().err.splitlines()[-1]
    assert "holds a run of other data, another model or other options" in refused
    assert "data.source.digest" in refused
    np.savez("images.npz", **images)
    assert execute(*first, "codes", *corrected) == 0
    assert execute(*first, "priors", *corrected) == 0
    capsys.readouterr()
    assert execute(*first, "samples") == 1
    assert "prior_train.steps: 2 there, 4 here" in capsys.readouterr().err
    assert execute(*first, "samples", *corrected) == 0
    assert report("run")["metrics"]["prior_step/codes"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.quantizer", "finite-scalar"], "model.codes must be one of [64, 256, 512"),
        (["--model.quantizer", "lookup-free", "--model.codes", "9"], "must be a power of 2"),
        (["--model.codes", "0"], "model.codes must be at least 1, got 0"),
        (["--model.restart-below", "1"], "model.restart_below must be in [0, 1), got 1.0"),
        (["--prior.channels", "20"], "prior.channels must be a multiple of 8, got 20"),
        (["--prior.dropout", "1"], "prior.dropout must be in [0, 1), got 1.0"),
    ],
)
def test_options_out_of_range_are_one_line(options, message, capsys):
    with pytest.raises(SystemExit) as stop:
        execute("vqvae_mnist", "run", *options)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("quantizer", "codes"),
    [("gradient", 8), ("rotation", 8), ("finite-scalar", 64), ("lookup-free", 8)],
)
@pytest.mark.slow
def test_every_kind_of_code_is_trained(quantizer, codes):
    options = ["--model.quantizer", quantizer, "--model.codes", str(codes)]
    assert execute("vqvae_mnist", "run", *options) == 0
    assert 0 < report("run")["metrics"]["live_codes/codes"] <= 1


def test_levels_have_names_and_maps_that_halve():
    assert [_evaluation.level_names(levels) for levels in (1, 2, 3, 4)] == [
        ("codes",),
        ("top", "bottom"),
        ("top", "middle", "bottom"),
        ("top", "middle_1", "middle_2", "bottom"),
    ]
    config = dataclasses.replace(
        vqvae_mnist.PRESETS["digits"].config,
        model=vqvae_mnist.ModelConfig(levels=3, channels=(4, 4)),
    )
    shapes = vqvae_mnist.map_shapes(config.model, (28, 30, 1))
    assert shapes == [(2, 2), (4, 4), (7, 8)]
    model = vqvae_mnist.build(config, (28, 30, 1))
    assert [tuple(prior.network.map_shape) for prior in model.priors] == shapes


@pytest.mark.slow
def test_a_run_that_is_killed_in_any_stage_ends_as_one_that_was_not():
    command = [sys.executable, "-m", "experiments.vqvae2_celeba", *TINY]
    options = {"cwd": REPOSITORY, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    here = pathlib.Path.cwd()
    command[command.index("npz:images.npz")] = f"npz:{here}/images.npz"
    subprocess.run([*command, "--workdir", here / "whole"], check=True, **options)
    whole = report("whole")["metrics"]
    # Killed as soon as a stage has left its first file.
    marks = (
        "metrics.jsonl",
        "auto_encoder.safetensors",
        "codes.npz",
        "prior_top/metrics.jsonl",
        "prior_top/prior.safetensors",
        "prior_bottom/metrics.jsonl",
        "prior_bottom/prior.safetensors",
        "figures/code_usage.png",
    )
    for mark in marks:
        with subprocess.Popen([*command, "--workdir", here / "killed"], **options) as process:
            while not (here / "killed" / mark).exists() and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
    subprocess.run([*command, "--workdir", here / "killed"], check=True, **options)
    assert report("killed")["metrics"] == whole
    for name in ("auto_encoder.safetensors", "prior_top/prior.safetensors", "codes.npz"):
        same = [(here / run / name).read_bytes() for run in ("whole", "killed")]
        if name == "codes.npz":
            same = [dict(np.load(here / run / name)) for run in ("whole", "killed")]
            assert all(np.array_equal(same[0][key], same[1][key]) for key in same[0])
        else:
            assert same[0] == same[1]
    shutil.rmtree("killed")
