"""Glow on faces end to end, at a tiny size, and its errors for bad input."""

from __future__ import annotations

import importlib.metadata
import json
import math
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import _cli, glow_celeba
from vaeflow import data

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = ["--model.levels", "1", "--model.steps", "2", "--model.width", "8", "--train.steps", "4"]


def execute(*arguments):
    return _cli.execute("glow_celeba", glow_celeba.PRESETS, glow_celeba.run, arguments)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.figures
def test_faces_are_trained_measured_and_plotted(capsys):
    assert execute("--workdir", "run", *TINY, "--train.evaluate-every", "2") == 0
    report = json.loads(pathlib.Path("run/report.json").read_text())
    found = report["metrics"]
    assert all(math.isfinite(value) for value in found.values())
    assert 6 < found["bits_per_dim"] < 9
    # The same split and the same rule for every density: these are known from elsewhere.
    assert found["bits_per_dim_diagonal_gaussian"] == pytest.approx(7.46, abs=0.1)
    assert found["bits_per_dim_shrunk_gaussian"] == pytest.approx(6.83, abs=0.1)
    assert found["bits_per_dim_linear_predictor"] == pytest.approx(6.42, abs=0.1)
    assert found["round_trip_error"] < 1e-3
    figures = {path.name for path in pathlib.Path("run/figures").iterdir()}
    assert figures >= {
        "interpolations.png",
        "nearest_training_images.png",
        "reconstructions.png",
        "samples.png",
        "samples_step_0000001.png",
        "samples_step_0000004.png",
        "training_curve.png",
    }
    assert "bits_per_dim: " in capsys.readouterr().out


@pytest.mark.slow
def test_every_option_of_the_model_trains():
    options = ["--model.dequantization", "variational", "--model.backward", "reversible"]
    options += ["--model.precision", "bfloat16", "--model.bits", "5"]
    assert execute("--preset", "mnist", "--workdir", "run", *TINY, *options) == 0
    report = json.loads(pathlib.Path("run/report.json").read_text())
    assert 0 < report["metrics"]["bits_per_dim"] < 8
    assert report["expected"] == {}  # of fewer steps, and of other data


@pytest.mark.slow
def test_bits_per_dim_does_not_depend_on_the_size_of_batches():
    config = glow_celeba.PRESETS["faces"].config
    dataset = data.open_dataset(config.data)
    small = glow_celeba.ModelConfig(levels=1, steps=1, width=4)
    model = glow_celeba.build(glow_celeba.Config(config.data, small, config.train), dataset.shape)
    images = data.stack(dataset.train, 16)["image"]
    variables = jax.jit(model.init)(jax.random.key(0), images)
    by_size = [
        glow_celeba.bits_per_dim(model, variables, dataset.test, batch_size=size)
        for size in (10, 4)
    ]
    assert by_size[0] == pytest.approx(by_size[1], rel=1e-6)


def save_images(folder, *shapes):
    pathlib.Path(folder).mkdir()
    for number, shape in enumerate(shapes):
        pixels = np.random.default_rng(number).integers(0, 256, shape).astype(np.uint8)
        Image.fromarray(pixels).save(f"{folder}/{number}.png")


def broken(folder):
    save_images(folder, *[(8, 8, 3)] * 4)
    for number in range(4):
        pathlib.Path(folder, f"broken{number}.png").write_bytes(b"no image")


def archive(**arrays):
    return lambda path: np.savez(path, **arrays)


GOOD = np.zeros((100, 8, 8, 1), np.uint8)
BAD_INPUT = {
    "unknown source": ("elephants", None, "got 'elephants'"),
    "missing archive": ("npz:there.npz", None, "there.npz"),
    "wrong dtype": ("npz:there.npz", archive(image=GOOD + np.float32(0.5)), "float32"),
    "not finite": ("npz:there.npz", archive(image=GOOD + np.nan), "finite"),
    "objects": ("npz:there.npz", archive(image=GOOD.astype(object)), "object"),
    "wrong rank": ("npz:there.npz", archive(image=np.zeros((9, 8), np.uint8)), "(9, 8)"),
    "too few examples": ("npz:there.npz", archive(image=GOOD[:12]), "got 16"),
    "odd size": ("npz:there.npz", archive(image=GOOD[:, :7]), "divisible by 2"),
    "empty folder": ("folder:there", lambda path: pathlib.Path(path).mkdir(), "there"),
    "mixed sizes": (
        "folder:there",
        lambda path: save_images(path, *[(8, 8, 3)] * 30, (9, 9, 3)),
        "image_size",
    ),
    "broken images": ("folder:there", broken, "broken0.png"),
    "unprepared": ("tfds:celeb_a", None, "celeb_a"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_clear_line(case, capfd):
    source, make, message = BAD_INPUT[case]
    if make is not None:
        make(source.partition(":")[2])
    code = execute("--workdir", "run", "--data.source", source, *TINY)
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert code == 1
    assert len(errors) == 1
    assert message in errors[0]


def test_a_missing_package_is_one_clear_line(monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    monkeypatch.setattr("importlib.metadata.distribution", _not_found)
    assert execute("--workdir", "run", *TINY) == 1
    assert "vaeflow[experiments]" in capfd.readouterr().err.splitlines()[-1]


def _not_found(name):
    raise importlib.metadata.PackageNotFoundError(name)


@pytest.mark.slow
def test_no_traceback_reaches_the_terminal(tmp_path):
    command = [sys.executable, "-m", "experiments.glow_celeba", "--data.source", "npz:none.npz"]
    command += ["--workdir", str(tmp_path / "run")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr + ended.stdout
    assert ended.stderr.splitlines()[-1].startswith("error: ")
