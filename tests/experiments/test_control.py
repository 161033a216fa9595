"""Latents that are set by name, on runs written by hand."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import sys
import types

import jax
import numpy as np
import pytest
from PIL import Image

import vaeflow as vf
from experiments import control, vae_mnist
from tests.pixels import occurrences
from vaeflow import decoders, encoders, models

SHAPE = (6, 6, 1)
IMAGES = np.random.RandomState(0).randint(0, 256, (60, *SHAPE)).astype(np.uint8)


pytestmark = pytest.mark.figures


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("digits.npz", image=IMAGES)


@functools.cache
def initialized(model, labelled: bool) -> dict:
    labels = np.arange(8) % 3 if labelled else None
    return jax.device_get(jax.jit(model.init)(jax.random.key(0), IMAGES[:8], context=labels))


@functools.partial(jax.jit, static_argnums=0)
def encode(model, variables, image, context=None):
    """The latents of an image."""
    return model.apply(variables, image[None], jax.random.key(0), context=context, method="encode")[
        0
    ]


@functools.partial(jax.jit, static_argnums=0)
def decode(model, variables, z, context=None):
    return model.apply(variables, z, context=context, method="decode")


@functools.partial(jax.jit, static_argnums=(0, 2))
def draw(model, variables, seed):
    """Latents from the prior."""
    return model.apply(variables, method="prior").sample(seed=jax.random.key(seed))


def write_run(module: str, config, model, labelled: bool = False) -> dict:
    """A run of an experiment, with variables fresh from `init`."""
    pathlib.Path("run").mkdir()
    variables = initialized(model, labelled)
    described = {"experiment": module, "preset": "", "shape": list(SHAPE)}
    vf.save(
        "run/model.safetensors",
        {**described, "config": dataclasses.asdict(config)},
        variables,
    )
    return variables


def plain_run() -> tuple[models.VAE, dict]:
    """A run of the digits' experiment with three latents."""
    config = vae_mnist.PRESETS["vae"].config
    config = dataclasses.replace(
        config,
        data=vf.data.DataConfig("npz:digits.npz"),
        model=dataclasses.replace(config.model, latents=3),
    )
    model = vae_mnist.build(config, SHAPE)
    return model, write_run("vae_mnist", config, model)


def grouped_run(monkeypatch) -> tuple[models.VAE, dict]:
    """A run with a group of two normals and a category of three."""
    groups = {
        "style": encoders.DiagonalGaussianPosterior(2),
        "digit": encoders.ConcretePosterior(3),
    }
    posterior = encoders.GroupedPosterior(groups)
    model = models.VAE(
        encoders.Encoder(encoders.DenseEncoder(()), posterior),
        decoders.Decoder(decoders.DenseDecoder(()), decoders.BernoulliLikelihood(), SHAPE),
        models.Binarizer(),
    )
    return model, toy_run(monkeypatch, model)


def toy_run(monkeypatch, model: models.VAE, labelled: bool = False) -> dict:
    """A run of an experiment that builds a given model."""
    module = types.ModuleType("experiments.toy")
    module.Config = vae_mnist.Config
    module.build = lambda config, shape: model
    monkeypatch.setitem(sys.modules, "experiments.toy", module)
    config = vae_mnist.PRESETS["vae"].config
    config = dataclasses.replace(config, data=vf.data.DataConfig("npz:digits.npz"))
    return write_run("toy", config, model, labelled)


def canvas() -> np.ndarray:
    with Image.open("out.png") as image:
        return np.asarray(image.convert("RGB"))


def drawn(image) -> list[int]:
    """Where from the left an image is in the figure."""
    return [left for _, left in occurrences(canvas(), np.asarray(image), 8)]


def test_original_reconstruction_and_change_are_drawn(capsys):
    model, variables = plain_run()
    arguments = ["run", "--set", "z1=2.5", "--set", "z0=-1", "--image", "4", "--out", "out.png"]
    assert control.main(arguments) == 0
    assert capsys.readouterr().out == "out.png is saved\n"
    test = vf.data.open_dataset(vf.data.DataConfig("npz:digits.npz")).test
    real = test[4]["image"]
    z = np.array(encode(model, variables, real))
    changed = np.float32([-1.0, 2.5, z[2]])
    places = [drawn(real), *map(drawn, decode(model, variables, np.stack([z, changed])))]
    assert [len(found) for found in places] == [1, 1, 1]
    assert places[0] < places[1] < places[2]


@pytest.mark.slow
def test_a_sweep_goes_through_the_values_of_a_draw_of_the_prior():
    model, variables = plain_run()
    arguments = ["run", "--set", "z0=1", "--sweep", "z2", "--prior", "7", "--out", "out.png"]
    assert control.main(arguments) == 0
    z = np.array(draw(model, variables, 7))
    swept = [np.float32([1.0, z[1], value]) for value in range(-3, 4)]
    images = decode(model, variables, np.stack([z, *swept]))
    places = [drawn(image) for image in np.asarray(images)]
    assert [len(found) for found in places] == [1] * 8
    assert places == sorted(places)


@pytest.mark.slow
def test_categories_are_set_and_swept(monkeypatch):
    model, variables = grouped_run(monkeypatch)
    arguments = ["run", "--set", "style.1=-2", "--sweep", "digit", "--out", "out.png"]
    assert control.main(arguments) == 0
    real = vf.data.open_dataset(vf.data.DataConfig("npz:digits.npz")).test[0]["image"]
    z = np.array(encode(model, variables, real))
    corners = [np.float32([z[0], -2.0, *np.eye(3)[digit]]) for digit in range(3)]
    images = np.asarray(decode(model, variables, np.stack(corners)))
    places = [drawn(image) for image in images]
    assert [len(found) for found in places] == [1] * 3
    assert places == sorted(places)
    assert control.main(["run", "--set", "style.1=-2", "--set", "digit=1", "--out", "out.png"]) == 0
    assert len(drawn(images[1])) == 1


@pytest.mark.parametrize("start", ["image", "prior"])
def test_labels_are_set_and_swept(start, monkeypatch):
    labels = np.arange(60) % 3
    np.savez("digits.npz", image=IMAGES, label=labels)
    model = models.VAE(
        encoders.Encoder(encoders.DenseEncoder(()), encoders.DiagonalGaussianPosterior(2)),
        decoders.Decoder(decoders.DenseDecoder(()), decoders.BernoulliLikelihood(), SHAPE),
        models.Binarizer(),
        num_classes=3,
    )
    variables = toy_run(monkeypatch, model, labelled=True)
    test = vf.data.open_dataset(vf.data.DataConfig("npz:digits.npz")).test[1]
    if start == "image":
        options = ["--image", "1"]
        z = encode(model, variables, test["image"], test["label"][None])
    else:
        options = ["--prior", "2"]
        z = draw(model, variables, 2)
    arguments = ["run", "--set", "z0=2", *options, "--sweep", "label", "--out", "out.png"]
    assert control.main(arguments) == 0
    changed = np.tile(np.float32([2.0, z[1]]), (3, 1))
    images = np.asarray(decode(model, variables, changed, np.arange(3)))
    places = [drawn(image) for image in images]
    assert [len(found) for found in places] == [1] * 3
    assert places == sorted(places)
    assert control.main(["run", "--set", "label=3", "--out", "out.png"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "z3=1"], "no latent is called 'z3'; there are z0 to z2"),
        (["--sweep", "style.0"], "no latent is called 'style.0'; there are z0 to z2"),
        (["--set", "z1=high"], "--set z1=high: 'high' isn't a number"),
        (["--set", "z1"], "--set z1: '' isn't a number"),
        (["--set", "z1=inf"], "--set z1=inf: the value must be finite"),
        (["--set", "z1=1", "--image", "60"], "--image 60: the test images are 0 to 5"),
    ],
)
def test_missing_things_are_one_line(options, message, capsys):
    plain_run()
    assert control.main(["run", *options, "--out", "out.png"]) == 2
    assert capsys.readouterr() == ("", f"error: {message}\n")
    assert not pathlib.Path("out.png").exists()


def test_wrong_names_and_categories_of_groups_are_one_line(monkeypatch, capsys):
    grouped_run(monkeypatch)
    assert control.main(["run", "--set", "digit=3", "--out", "out.png"]) == 2
    assert control.main(["run", "--set", "z0=3", "--out", "out.png"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: --set digit=3: the categories are 0 to 2",
        "error: no latent is called 'z0'; there are style.0 to style.1, digit=0 to digit=2",
    ]


def test_runs_that_cannot_be_used_are_one_line(monkeypatch, capsys):
    plain_run()
    assert control.main(["nowhere", "--set", "z0=1", "--out", "out.png"]) == 1
    assert control.main(["run", "--set", "z0=1", "--out", "out.txt"]) == 1
    monkeypatch.setattr(control, "functions_of", lambda opened: {"log_prob": None})
    assert control.main(["run", "--set", "z0=1", "--out", "out.png"]) == 1
    pathlib.Path("digits.npz").unlink()
    monkeypatch.undo()
    first, second, third = capsys.readouterr().err.splitlines()
    assert first == "error: run nowhere has no model.safetensors: it isn't finished, or no run"
    assert second.startswith("error: path must end in one of")
    assert third == "error: run run has no latents: its model is no auto-encoder"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--out", "out.png"], "one of --set and --sweep is needed"),
        (["run", "--set", "z0=1"], "the following arguments are required: --out"),
        (
            ["run", "--sweep", "z0", "--image", "1", "--prior", "1", "--out", "out.png"],
            "argument --prior: not allowed with argument --image",
        ),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        control.main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"error: {message}; --help lists every option\n"
