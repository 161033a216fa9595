"""HFVAEs of a style and a category: objective, measurements, and a run end to end."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments import _cli, _evaluation, hfvae_fashion, hfvae_mnist
from experiments.hfvae_mnist import ObjectiveConfig, loss, make_weights
from vaeflow import data, distributions, losses, training
from vaeflow.distributions.grouped import per_dim_kl

TINY = ["--train.steps", "4", "--train.scan-steps", "2", "--train.batch-size", "8"]
SMALL = [*TINY, "--model.styles", "2", "--model.categories", "3"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.random.RandomState(0).randint(0, 256, (60, 6, 6, 1)).astype(np.uint8)
    np.savez("digits.npz", image=images, label=np.arange(60) % 5)


def execute(experiment, *arguments):
    name = experiment.__name__.rpartition(".")[2]
    return _cli.execute(name, experiment.PRESETS, experiment.run, arguments)


def test_clothes_that_are_not_there_are_said_to_come_from_where(capsys, monkeypatch):
    monkeypatch.setattr(hfvae_fashion, "SOURCE", "idx:nowhere")
    assert execute(hfvae_fashion, "--data.source", "idx:nowhere") == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: data.source idx:nowhere isn't on this machine. The data are ")
    for place in ("apt install dataset-fashion-mnist", "tfds:fashion_mnist", "idx:FOLDER"):
        assert place in line


@pytest.mark.parametrize(
    ("experiment", "preset"),
    [
        pytest.param(hfvae_mnist, "led", marks=pytest.mark.figures),
        pytest.param(
            hfvae_fashion,
            "published",
            marks=[pytest.mark.slow, pytest.mark.figures],
        ),
    ],
)
def test_presets_are_trained_measured_and_plotted(experiment, preset, capsys):
    options = ["--workdir", "run", "--preset", preset, *SMALL, "--data.source", "npz:digits.npz"]
    assert execute(experiment, *options) == 0
    found = json.loads(pathlib.Path("run/report.json").read_text())["metrics"]
    assert all(math.isfinite(value) for value in found.values())
    assert found["kl"] == pytest.approx(found["kl/style"] + found["kl/category"])
    assert found["negative_elbo"] == pytest.approx(found["reconstruction"] + found["kl"])
    assert 0 <= found["category_mutual_information"] <= found["category_entropy"] <= math.log(3)
    # 6 test images of 5 labels, in 3 categories.
    assert found["cluster_accuracy"] * 6 == pytest.approx(round(found["cluster_accuracy"] * 6))
    for name in ("samples", "reconstructions", "categories", "styles", "category_by_style_2"):
        with Image.open(f"run/figures/{name}.png") as image:
            assert np.asarray(image).std() > 1
    assert "; the category has 0." in capsys.readouterr().out.splitlines()[-1]


def test_the_published_objective_is_constant_and_the_other_ends_with_it():
    published = make_weights(ObjectiveConfig(), 100, 7)
    led = make_weights(hfvae_mnist.PRESETS["led"].config.objective, 100, 7)

    def at(weights, step):
        return {name: float(w(step) if callable(w) else w) for name, w in weights.items()}

    expected = {"alpha": 1, "beta": 12, "gamma": 4, "style_weight": 0, "dataset_size": 7}
    for step in (0, 50, 100):
        assert at(published, step).items() >= expected.items()
        assert at(published, step)["capacity_weight"] == 0
    for step in (0, 60):
        assert at(led, step).items() >= {"beta": 1.0, "gamma": 1.0, "style_weight": 5.0}.items()
    assert at(led, 70)["beta"] == pytest.approx(6.5)
    for step in (80, 100):
        assert at(led, step).items() >= expected.items()


def test_capacity_and_style_weight_are_added_to_the_objective():
    config = dataclasses.replace(
        hfvae_mnist.PRESETS["led"].config, model=hfvae_mnist.ModelConfig(styles=2, categories=3)
    )
    model = hfvae_mnist.build(config, (6, 6, 1))
    images = np.load("digits.npz")["image"][:8]
    batch = {"image": images, "index": np.arange(8)}
    variables = jax.jit(model.init)(jax.random.key(0), images)
    keys = jax.random.split(jax.random.key(1), 8)
    options = {"dataset_size": 50, "beta": 3.0}

    @jax.jit
    def run(variables, keys, capacity):
        plain, _ = losses.hfvae(model, variables, batch, keys, **options)
        led, aux = loss(
            model,
            variables,
            batch,
            keys,
            capacity=capacity,
            capacity_weight=10.0,
            style_weight=2.0,
            **options,
        )
        return led - plain, aux.metrics

    for capacity in (0.0, 1.0):
        more, metrics = run(variables, keys, capacity)
        information = metrics["category_mutual_information"]
        expected = 10 * abs(float(information) - capacity) + 2 * float(metrics["kl/style"])
        assert float(more) == pytest.approx(expected, rel=1e-3)

    # From the probabilities of the very observation that the objective has.
    @jax.jit
    def probabilities(variables):
        first = jax.vmap(jax.random.split)(keys)[:, 0]
        values = model.apply(variables, images, first, method="observe").values
        return model.apply(variables, values, method="posterior").groups["category"].probability

    pi = np.asarray(probabilities(variables), np.float64)
    entropies = [-np.sum(p * np.log(p), axis=-1).mean() for p in (pi.mean(0), pi)]
    assert float(information) == pytest.approx(entropies[0] - entropies[1], abs=1e-5)


def posteriors(style, probability):
    """Those of a data set: narrow normals in two latents, and probabilities of categories."""
    style = np.stack([style, np.zeros_like(style)], axis=-1).astype(np.float32)
    normals = distrax.Independent(distrax.Normal(jnp.asarray(style), jnp.float32(0.01)), 1)
    category = distributions.Concrete(jnp.log(jnp.asarray(probability, jnp.float32)), 0.66)
    z = np.concatenate([style, np.eye(2)[probability.argmax(-1)]], axis=-1).astype(np.float32)
    return distributions.Grouped({"style": normals, "category": category}), jnp.asarray(z)


SURE = np.array([[1 - 1e-6, 1e-6], [1e-6, 1 - 1e-6]])


@pytest.mark.parametrize(
    ("category", "expected"), [([0, 1, 0, 1], 0.0), ([0, 0, 1, 1], math.log(2))]
)
def test_total_correlation_is_the_information_shared_by_style_and_category(category, expected):
    style = np.array([-1.0, -1.0, 1.0, 1.0])
    found = hfvae_mnist.total_correlations(*posteriors(style, SURE[np.array(category)]))
    assert found["total_correlation"] == pytest.approx(expected, abs=1e-4)
    assert found["total_correlation/style"] == pytest.approx(0, abs=1e-4)


def test_information_and_accuracy_of_the_category():
    probability = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.9, 0.1]])
    posterior, _ = posteriors(np.zeros(4), probability)
    found = hfvae_mnist.category_metrics(posterior, np.array([1, 1, 0, 0]))
    entropy = lambda p: -(p * np.log(p)).sum(-1).mean()  # noqa: E731
    marginal = entropy(probability.mean(0))
    assert found["category_entropy"] == pytest.approx(marginal, rel=1e-5)
    told = marginal - entropy(probability)
    assert found["category_mutual_information"] == pytest.approx(told, rel=1e-5)
    assert found["cluster_accuracy"] == 0.75
    assert "cluster_accuracy" not in hfvae_mnist.category_metrics(posterior, None)


@pytest.mark.slow
def test_measures_cover_every_example_once(monkeypatch):
    config = hfvae_mnist.Config(
        data.DataConfig("npz:digits.npz"),
        hfvae_mnist.ModelConfig(styles=2, categories=3),
        ObjectiveConfig(),
        training.TrainConfig(),
    )
    dataset = data.open_dataset(config.data)
    model = hfvae_mnist.build(config, dataset.shape)
    images = data.stack(dataset.train)["image"]
    variables = jax.jit(model.init)(jax.random.key(0), images)
    monkeypatch.setattr(_evaluation, "BATCH", 32)
    posterior, z = hfvae_mnist.posteriors(model, variables, dataset.train)
    assert posterior.batch_shape == (48,)
    assert z.shape == (48, 5)
    np.testing.assert_array_equal(np.sort(z[:, 2:], axis=-1), [[0, 0, 1]] * 48)
    prior = model.apply(variables, method="prior")
    kl = per_dim_kl(posterior, prior)
    found = hfvae_mnist.mean_terms(model, variables, dataset.train)
    for name, values in kl.items():
        assert found[f"kl/{name}"] == pytest.approx(float(values.sum(-1).mean()), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--objective.beta", "-1"], "objective.beta must be at least 0, got -1.0"),
        (["--objective.early", "2"], "must be in order and at most 1, got 2.0 and 0.8"),
        (["--model.categories", "1"], "model.categories must be at least 2, got 1"),
        (["--model.temperature", "0"], "model.temperature must be above 0, got 0.0"),
    ],
)
def test_bad_options_are_one_clear_line(options, message, capfd):
    with pytest.raises(SystemExit) as stop:
        execute(hfvae_mnist, "--workdir", "run", *options)
    assert stop.value.code == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
