"""Translation between two domains end to end, at a tiny size."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

import vaeflow as vf
from experiments import _cli, munit_digits, munit_folders
from experiments.export import export_run, open_run

EXPERIMENTS = {"munit_digits": munit_digits, "munit_folders": munit_folders}
REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
SMALL = [
    *("--model.content-channels", "2", "4", "--model.blocks", "1"),
    *("--model.style-channels", "2", "4", "--model.style-size", "3", "--model.hidden", "4"),
    *("--model.discriminator-channels", "2", "--model.scales", "1"),
    *("--train.steps", "4", "--train.scan-steps", "2", "--train.batch-size", "4"),
    *("--train.log-every", "1", "--train.checkpoint-every", "2"),
]
CLASSIFIERS = [
    *("--classifier-train.steps", "2", "--classifier-train.scan-steps", "2"),
    *("--classifier-train.evaluate-every", "2", "--classifier-train.batch-size", "8"),
]
FIGURES = ("drawn_styles", "styles_of_examples", "style_interpolation", "and_back")
CURVES = ("reconstruction", "style", "content", "adversarial")
TERMS = ("adversarial", "content", "cycle", "reconstruction", "style")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.RandomState(0)
    for domain, channels in (("a", 1), ("b", 3)):
        pathlib.Path(domain).mkdir()
        for number in range(40):
            pixels = random.randint(0, 256, (8, 8, channels)).astype(np.uint8)
            Image.fromarray(pixels.squeeze()).save(f"{domain}/{number}.png")


def execute(name, workdir, *options):
    arguments = ["--workdir", workdir, *SMALL, *options]
    return _cli.execute(name, EXPERIMENTS[name].PRESETS, EXPERIMENTS[name].run, arguments)


def report(workdir):
    return json.loads(pathlib.Path(workdir, "report.json").read_text())


def folders(here="."):
    return ["--data.a", f"folder:{here}/a", "--data.b", f"folder:{here}/b"]


@pytest.mark.slow
@pytest.mark.figures
def test_digits_are_translated_scored_and_plotted():
    assert execute("munit_digits", "run", *CLASSIFIERS) == 0
    found = report("run")["metrics"]
    assert all(math.isfinite(value) for value in found.values())
    scores = ("content_agreement/a_to_b", "diversity_ratio/real", "frechet_ratio/b_to_a")
    terms = [f"held_out/{term}_{domain}" for term in TERMS for domain in "ab"]
    assert {*scores, *terms, "conditional_inception_score"} <= set(found)
    names = [f"{way}_{name}" for way in ("a_to_b", "b_to_a") for name in FIGURES]
    for name in (*names, *(f"{curve}_curve" for curve in CURVES), "a_to_b_step_0000004"):
        with Image.open(f"run/figures/{name}.png") as image:
            assert np.asarray(image).std() > 1


@pytest.mark.slow
def test_folders_of_grey_and_coloured_images_are_translated():
    assert execute("munit_folders", "run", *folders(), "--loss.cycle", "1") == 0
    found = report("run")["metrics"]
    assert sorted(found) == [f"held_out/{term}_{domain}" for term in TERMS for domain in "ab"]
    records = list(map(json.loads, pathlib.Path("run/metrics.jsonl").read_text().splitlines()))
    assert "generator/cycle_a" in records[0]


@pytest.mark.slow
def test_a_translation_is_exported():
    assert execute("munit_folders", "run", *folders()) == 0
    opened = open_run("run")
    assert opened.shape == {"a": (8, 8, 1), "b": (8, 8, 3)}
    model = opened.module.build(opened.config, opened.shape)
    assert isinstance(model, vf.models.MUNIT)
    images = np.random.RandomState(1).randint(0, 256, (5, 8, 8, 1)).astype(np.uint8)
    styles = np.random.RandomState(1).normal(size=(5, 3)).astype(np.float32)
    translate = jax.jit(lambda own: model.apply(own, images, "b", styles, method="translate"))
    expected = translate(opened.variables)
    assert expected.shape == (5, 8, 8, 3)
    names = export_run("run", "run.zip")
    assert len(names) == 8
    call = vf.sharing.load_exported("run.zip")["translate_a_to_b"]
    difference = np.asarray(call(images, styles), int) - np.asarray(expected, int)
    assert np.abs(difference).max() <= 1  # of 255 levels


def test_domains_of_different_sizes_are_an_error(capsys):
    options = ["--data.a", "embedded:face-edges", "--data.b", "folder:b"]
    assert execute("munit_folders", "run", *options) == 1
    assert "got embedded:face-edges of 24x24x1 and folder:b of 8x8x3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "munit_folders",
            ["--train.batch-size", "33"],
            "train.batch_size must be at most 32, the number of training examples, got 33",
        ),
        (
            "munit_digits",
            [
                *CLASSIFIERS,
                "--classifier-train.batch-size",
                "7",
                "--classifier-train.accumulate",
                "2",
            ],
            "classifier_train.batch_size must be divisible by",
        ),
        pytest.param(
            "munit_digits",
            [*CLASSIFIERS, "--classifier-train.batch-size", "100000"],
            "classifier_train.batch_size must be at most ",
            marks=pytest.mark.slow,  # digits are rendered
        ),
    ],
)
def test_batches_that_do_not_fit_are_an_error_before_training(name, options, message, capsys):
    assert execute(name, "run", *(folders() if name == "munit_folders" else []), *options) == 1
    assert message in capsys.readouterr().err
    assert not list(pathlib.Path("run").glob("classifier*"))


def test_a_domain_of_a_single_test_image_is_an_error_before_training(capsys):
    for number in range(10, 40):
        pathlib.Path(f"b/{number}.png").unlink()
    assert execute("munit_folders", "run", *folders()) == 1
    assert "domain b must have 2 test images" in capsys.readouterr().err
    assert not pathlib.Path("run/metrics.jsonl").exists()


def test_domains_of_unknown_styles_are_an_error_of_the_scores(capsys):
    assert execute("munit_digits", "run", *folders(), *CLASSIFIERS) == 1
    assert "b must be drawings, whose styles are known, got folder:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--loss.style", "-1"], "loss.style must be at least 0, got -1.0"),
        (["--model.scales", "0"], "model.scales must be at least 1, got 0"),
        (["--model.blocks", "-1"], "model.blocks must be at least 0, got -1"),
        (["--model.style-channels", "4", "0"], "must be one or more from 1 up, got (4, 0)"),
        (["--train.halve-every", "-1"], "train.halve_every must be at least 0, got -1"),
    ],
)
def test_options_out_of_range_are_an_error(options, message, capsys):
    with pytest.raises(SystemExit) as stop:
        execute("munit_folders", "run", *options)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_the_paper_preset_has_the_sizes_of_the_paper():
    config = munit_folders.PRESETS["paper"].config
    shapes = {"a": (256, 256, 3), "b": (256, 256, 3)}
    game = munit_folders.build_game(config.model, shapes)
    images = jax.ShapeDtypeStruct((1, 256, 256, 3), np.uint8)
    judgements, variables = jax.eval_shape(game.init_with_output, jax.random.key(0), images, images)
    assert [tree.shape for tree in judgements["b"]] == [(1, 16, 16), (1, 8, 8), (1, 4, 4)]
    model, own = vf.models.submodel(game, variables, "generator")
    content, style = jax.eval_shape(
        lambda own, images: model.apply(own, images, "a", method="encode"), own, images
    )
    assert content.shape == (1, 64, 64, 256)
    assert style.event_shape == (8,)
    train = config.train
    assert (train.batch_size, train.learning_rate, train.halve_every) == (1, 1e-4, 100_000)
    assert dataclasses.asdict(config.loss) == {
        "reconstruction": 10,
        "content": 1,
        "style": 1,
        "cycle": 0,
    }


@pytest.mark.slow
def test_a_run_that_is_killed_ends_as_one_that_was_not():
    here = pathlib.Path.cwd()
    command = [sys.executable, "-m", "experiments.munit_folders", *SMALL, *folders(here)]
    command += ["--train.steps", "12", "--train.ema-decay", "0.9"]
    options = {"cwd": REPOSITORY, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([*command, "--workdir", here / "whole"], check=True, **options)
    for mark in ("checkpoints/2", "checkpoints/6", "model.safetensors"):
        with subprocess.Popen([*command, "--workdir", here / "killed"], **options) as process:
            while not (here / "killed" / mark).exists() and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
    subprocess.run([*command, "--workdir", here / "killed"], check=True, **options)
    assert report("killed")["metrics"] == report("whole")["metrics"]
    first, second = ((here / run / "model.safetensors").read_bytes() for run in ("whole", "killed"))
    assert first == second
    # The last checkpoint holds both players and their optimisers.
    digests = [
        json.loads((here / run / "checkpoints/12/beside/metadata").read_text())["crc32"]
        for run in ("whole", "killed")
    ]
    assert digests[0] == digests[1]
