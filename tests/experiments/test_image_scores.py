"""Scores of samples by a classifier that is trained within a run."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from experiments import _scores, export, image_classifier
from tests import quadrants
from vaeflow import data, metrics, training

TRAIN = training.TrainConfig(steps=60, batch_size=16, learning_rate=0.003, scan_steps=20)


@dataclasses.dataclass(frozen=True)
class Config:
    train: training.TrainConfig


def run_directory():
    return training.open_run_directory("run", Config(TRAIN), experiment="any", preset="one")


@pytest.fixture(scope="module", autouse=True)
def _here(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("scores"))
        quadrants.write("quadrants.npz")
        yield


@pytest.fixture(scope="module")
def dataset(_here):
    return data.open_dataset(data.DataConfig("npz:quadrants.npz"))


@pytest.fixture(scope="module")
def scorer(dataset):
    config = data.DataConfig("npz:quadrants.npz", flip=True)
    return _scores.open_scorer(dataset, config, run_directory(), train=TRAIN)


def test_held_out_images_score_as_data(scorer, dataset):
    assert scorer.count == 40  # of 80 training and 40 test images
    assert scorer.accuracy > 0.8
    found = scorer.held_out
    assert 0.5 < found.confidence < 0.99
    assert found.label_entropy == pytest.approx(math.log(4), abs=0.02)
    assert 2 < found.inception_score <= 4
    # The order of the images makes no difference, which images they are does.
    again = scorer(data.stack(dataset.test)["image"])
    np.testing.assert_allclose(again, found, rtol=1e-6)


def test_missing_classes_and_noise_worsen_the_scores(scorer):
    draw = quadrants.draw(40, 7)["image"]
    fresh, single = scorer(draw), scorer(np.repeat(draw[:10], 4, axis=0))
    noise = scorer(np.random.RandomState(0).randint(0, 256, draw.shape).astype(np.uint8))
    assert fresh.frechet_distance < 2 * scorer.held_out.frechet_distance
    assert single.label_entropy < 0.5
    assert single.inception_score < 1.5
    assert single.confidence > 0.5
    for worse in (single, noise):
        assert worse.frechet_distance > 2 * scorer.held_out.frechet_distance
    assert noise.confidence < fresh.confidence


def test_the_scores_are_those_of_the_metrics(scorer, dataset):
    opened = export.open_run("run/classifier")  # a run like those of the classifier's experiment
    assert opened.module is image_classifier
    assert opened.config == image_classifier.Config(
        data.DataConfig("npz:quadrants.npz", flip=False), TRAIN, 4
    )
    images = quadrants.draw(40, 7)["image"]
    rows = np.random.RandomState(0).permutation(80)[:40]
    model = opened.module.build(opened.config, opened.shape)
    values = [
        image_classifier.classify(model, opened.variables, split)
        for split in (images, dataset.train.gather(rows)["image"])
    ]
    probabilities = np.exp(values[0][0])
    expected = _scores.SampleScores(
        probabilities.max(axis=1).mean(),
        metrics.label_entropy(probabilities.argmax(axis=1)),
        metrics.inception_score(probabilities),
        metrics.frechet_distance(values[0][1], values[1][1]),
    )
    np.testing.assert_allclose(scorer(images), expected, rtol=1e-9)
    found = scorer.report({"samples": images})
    assert found.pop("classifier_accuracy") == scorer.accuracy
    assert list(found) == [
        f"{name}/{score}" for name in ("held_out", "samples") for score in expected._fields
    ]
    assert list(found.values()) == [*scorer.held_out, *scorer(images)]


def test_fewer_images_are_drawn_from_all_classes(scorer, dataset):
    config = data.DataConfig("npz:quadrants.npz")
    directory = run_directory()
    lines = (directory.path / "classifier" / "metrics.jsonl").read_bytes()
    few = _scores.open_scorer(dataset, config, directory, count=12, train=TRAIN)
    # The run has its classifier: it isn't trained again.
    assert (directory.path / "classifier" / "metrics.jsonl").read_bytes() == lines
    assert few.accuracy == scorer.accuracy
    assert few.held_out.label_entropy > 1  # the first 12 of the test images are of two classes
    references = dataset.train.gather(np.random.RandomState(0).permutation(80)[:12])["image"]
    assert few(references).frechet_distance == pytest.approx(0, abs=1e-9)


def test_other_numbers_and_kinds_of_images_raise_value_error(scorer, dataset):
    images = quadrants.draw(40)["image"]
    with pytest.raises(ValueError, match="as many as the references, got 39"):
        scorer(images[:39])
    with pytest.raises(ValueError, match="images must be uint8, got float32"):
        scorer(np.float32(images))
    with pytest.raises(ValueError, match=r"images must have images of shape \(8, 8, 1\), got"):
        scorer(images[:, :7])
    for count in (1, 41):
        with pytest.raises(ValueError, match=rf"count must be from 2 to 40, .*, got {count}"):
            _scores.Scorer(dataset, scorer._classifier, scorer._variables, count)


def test_data_without_labels_raise_value_error():
    config = data.DataConfig("embedded:faces")
    with pytest.raises(ValueError, match="must have labels to classify by, got embedded:faces"):
        _scores.open_scorer(data.open_dataset(config), config, run_directory())
