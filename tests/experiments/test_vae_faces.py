"""Variational auto-encoders of faces end to end, at a tiny size."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import _cli, vae_faces, vae_mnist
from vaeflow import losses

TINY = ["--train.steps", "4", "--train.scan-steps", "2", "--train.batch-size", "8"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def execute(*arguments):
    return _cli.execute("vae_faces", vae_faces.PRESETS, vae_faces.run, arguments)


@pytest.mark.figures
def test_the_embedded_faces_are_trained_measured_and_plotted():
    options = ["--workdir", "run", *TINY, "--train.evaluate-every", "2"]
    assert execute(*options, "--importance-samples", "100") == 0
    found = json.loads(pathlib.Path("run/report.json").read_text())["metrics"]
    assert all(math.isfinite(value) for value in found.values())
    # Each pixel's own mean and scale, from which training starts, take about as much.
    assert 6.5 < found["bits_per_dim"] < 9
    with Image.open("run/figures/manifold.png") as image:
        assert np.asarray(image).std() > 1


def test_other_faces_need_a_file(capsys):
    assert execute("--preset", "frey", "--workdir", "run") == 1
    assert "npz:PATH" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "likelihood",
    [
        pytest.param(
            name, marks=[] if name in ("bernoulli", "discretized-logistic") else [pytest.mark.slow]
        )
        for name in sorted(vae_mnist.LIKELIHOODS)
    ],
)
def test_every_likelihood_has_plausible_bits_per_dim(likelihood):
    sizes = vae_mnist.ModelConfig(latents=2, likelihood=likelihood)
    config = dataclasses.replace(vae_faces.PRESETS["faces"].config, model=sizes)
    model = vae_faces.build(config, (4, 4, 1))
    images = np.random.RandomState(0).randint(0, 256, (8, 4, 4, 1)).astype(np.uint8)

    @jax.jit
    def bits_and_sample():
        variables = model.init(jax.random.key(0), images)
        aux = losses.elbo(model, variables, {"image": images}, jax.random.key(1))[1]
        shown = model.apply(variables, jax.random.key(2), 3, method="sample")
        return aux.metrics["bits_per_dim"], shown

    bits, shown = bits_and_sample()
    # Binary images have one bit, noise of 256 levels eight; a decoder fresh from `init` has more.
    least, most = (0.7, 1.5) if likelihood == "bernoulli" else (7, 16)
    assert least < bits < most
    assert (shown.shape, shown.dtype) == ((3, 4, 4, 1), np.uint8)
