"""Classifiers of images end to end, at a tiny size."""

from __future__ import annotations

import json
import math
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

import vaeflow as vf
from experiments import _cli, export, image_classifier
from tests import quadrants
from vaeflow import plotting
from vaeflow.nn.convolution import convolution

SMALL = [*quadrants.TINY, "--classes", "4", "--data.source"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quadrants.write("quadrants.npz")


def execute(*arguments):
    return _cli.execute(
        "image_classifier", image_classifier.PRESETS, image_classifier.run, arguments
    )


@pytest.mark.figures
def test_a_classifier_is_trained_measured_plotted_and_exported():
    assert execute("--workdir", "run", *SMALL, "npz:quadrants.npz") == 0
    found = json.loads(pathlib.Path("run/report.json").read_text())["metrics"]
    assert all(math.isfinite(value) for value in found.values())
    assert found["accuracy"] > 0.8
    assert found["mistakes"] == pytest.approx(40 * (1 - found["accuracy"]))
    for name in ("cross_entropy", "validation_cross_entropy"):
        assert 0.01 < found[name] < 0.7 < math.log(4)
    for name in ("confusions", "training_curve"):
        with Image.open(f"run/figures/{name}.png") as image:
            assert np.asarray(image).std() > 1

    # The model that is left is the one that was measured.
    test = quadrants.draw(40, 2)
    _, variables = vf.load("run/model.safetensors")
    log_probabilities, features = image_classifier.classify(
        image_classifier.Classifier(4), variables, test["image"]
    )
    costs = image_classifier.costs(log_probabilities, test["label"])
    assert costs.mean() == pytest.approx(found["cross_entropy"], rel=1e-5)
    assert np.mean(log_probabilities.argmax(axis=1) == test["label"]) == found["accuracy"]

    assert export.main(["run", "--out", "run.zip"]) == 0
    shared = vf.sharing.load_exported("run.zip")
    for name, expected in (("log_probabilities", log_probabilities), ("features", features)):
        np.testing.assert_allclose(shared[name](test["image"][:3]), expected[:3], atol=1e-4)


def test_any_number_of_images_is_classified_as_one_is(monkeypatch):
    monkeypatch.setattr(image_classifier, "CHUNK", 7)
    model, images = image_classifier.Classifier(4), quadrants.draw(16)["image"]
    variables = jax.jit(model.init)(jax.random.key(0), images)
    log_probabilities, features = image_classifier.classify(model, variables, images)
    assert log_probabilities.dtype == features.dtype == np.float64
    expected = jax.jit(model.apply)(variables, images)
    np.testing.assert_allclose(features, expected.features, rtol=1e-4, atol=1e-5)
    ratios = log_probabilities - np.asarray(expected.logits)
    np.testing.assert_allclose(ratios, ratios[:, :1] + np.zeros(4), atol=1e-5)
    np.testing.assert_allclose(np.exp(log_probabilities).sum(axis=1), 1, rtol=1e-5)
    for count in (1, 7, 14):
        found = image_classifier.classify(model, variables, images[:count])
        np.testing.assert_allclose(found[1], features[:count], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_feature_maps_are_the_outputs_of_the_layers(channels, monkeypatch):
    monkeypatch.setattr(image_classifier, "CHUNK", 7)
    model = image_classifier.Classifier(4)
    images = np.random.RandomState(0).randint(0, 256, (16, 10, 8, channels)).astype(np.uint8)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    maps = image_classifier.feature_maps(model, variables, images)
    assert [layer.shape for layer in maps] == [(16, 5, 4, 16), (16, 3, 2, 32)]
    assert [layer.dtype for layer in maps] == [np.float32] * 2
    network = variables["params"]["ConvolutionalEncoder_0"]

    @jax.jit
    def by_hand(x):
        layers = []
        for name in ("Conv_0", "Conv_1"):
            x = vf.nn.relu(convolution(x, network[name]["kernel"], (2, 2)))  # biases are 0 yet
            layers.append(x)
        return layers

    for layer, expected in zip(maps, by_hand(np.float32(images) / 255), strict=True):
        np.testing.assert_allclose(layer, expected, rtol=1e-4, atol=1e-5)
    # The last one is what the hidden layer sees.
    dense = jax.device_get(network["Dense_0"])
    hidden = np.maximum(maps[1].reshape(16, -1) @ dense["kernel"] + dense["bias"], 0)
    _, features = image_classifier.classify(model, variables, images)
    np.testing.assert_allclose(features, hidden, rtol=1e-4, atol=1e-5)


def test_images_move_by_a_pixel_at_most_and_all_ways():
    image = np.arange(1, 21, dtype=np.uint8).reshape(4, 5, 1)
    rows, columns = np.arange(4)[:, None], np.arange(5)
    ways = {
        (down, right): image[np.clip(rows - down, 0, 3), np.clip(columns - right, 0, 4)]
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
    }
    keys = jax.random.split(jax.random.key(0), 200)
    moved = np.asarray(jax.jit(jax.vmap(image_classifier.shifted, (None, 0)))(image, keys))
    seen = [way for found in moved for way, e in ways.items() if np.array_equal(found, e)]
    assert len(seen) == len(moved)
    assert set(seen) == set(ways)


def test_training_sees_moved_images_and_their_labels():
    model, batch = image_classifier.Classifier(4), quadrants.draw(16)
    variables = jax.jit(model.init)(jax.random.key(0), batch["image"])
    keys = jax.random.split(jax.random.key(1), 16)

    @jax.jit
    def loss_and_moved(variables):
        loss, aux = image_classifier.shifted_cross_entropy(
            model, variables, batch, keys, train=True
        )
        return loss, aux, jax.vmap(image_classifier.shifted)(batch["image"], keys)

    loss, aux, moved = jax.device_get(loss_and_moved(variables))
    log_probabilities, _ = image_classifier.classify(model, variables, moved)
    expected = image_classifier.costs(log_probabilities, batch["label"]).mean()
    assert loss == pytest.approx(expected, rel=1e-5)
    assert set(aux.metrics) == {"cross_entropy", "accuracy"}


def test_the_surest_mistakes_and_the_least_sure_of_the_rest_are_drawn(monkeypatch):
    drawn = []
    monkeypatch.setattr(plotting, "image_table", lambda *arguments: drawn.append(arguments))
    images = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)
    labels = np.array([0, 0, 1, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.8, 0.2], [0.55, 0.45]])
    image_classifier.confusions(images, labels, np.log(probabilities))
    table, rows, columns = drawn[0]
    np.testing.assert_array_equal(table[..., 0, 0, 0], [[1, 255], [3, 255]])
    assert (rows, columns) == (["label 0", "label 1"], ["as 0", "as 1"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["npz:quadrants.npz", "--classes", "3"], "classes must be that of the data, 4, got 3"),
        (["embedded:faces"], "data.source must have labels to classify by, got embedded:faces"),
    ],
)
def test_data_of_other_classes_or_none_are_an_error(options, message, capfd):
    assert execute("--workdir", "run", *SMALL, *options) == 1
    assert message in capfd.readouterr().err
