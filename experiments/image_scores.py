"""Scores of samples by a classifier of the data that they are to be like.

The classifier is trained within the run that asks, in its folder `classifier`, from one seed: runs
on the same data have the same one, and their scores can be compared. Scores by other classifiers,
published ones included, can't.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from experiments import image_classifier
from vaeflow import data, metrics, training
from vaeflow.metrics._inputs import as_images

MOST = 10_000
"""Images that are scored, where the data have as many."""
CHUNK = 500
"""Samples that are drawn at once."""
PRESET = "digits"

Images = UInt8[np.ndarray | Array, "image height width channel"]


class SampleScores(NamedTuple):
    """What a classifier tells of a set of images.

    Attributes:
      confidence: The mean of max_y p(y | x): near 1 where each image is clearly of one class, but
        also where images are like none of the data, such as noise; the distance tells these apart.
      label_entropy: Of the most probable classes, in nats (`vaeflow.metrics.label_entropy`): how
        evenly they occur.
      inception_score: Both at once, from 1 to the number of classes
        (`vaeflow.metrics.samples`).
      frechet_distance: Between the features of the images and those of as many training images
        (`vaeflow.metrics.frechet_distance`).
    """

    confidence: float
    label_entropy: float
    inception_score: float
    frechet_distance: float


class Scorer:
    """Holds sets of images against the training images of a data set.

    Estimates of a Fréchet distance are too high by an amount that depends on the number of rows. So
    all sets are of `count` images and are held against the same `count` training images, drawn at
    random once. `held_out` are the scores of `count` test images: what samples that can't be told
    from the data have. The classifier was fitted to the training images, so that the distance of
    the test images is a little more than that of two sets of data would be.

    Attributes:
      accuracy: Share of all test images that the classifier takes for what they are.
      count: Images in a set.
      held_out: Scores of test images.
    """

    def __init__(
        self,
        dataset: data.Dataset,
        classifier: image_classifier.Classifier,
        variables: image_classifier.PyTree,
        count: int | None = None,
    ):
        most = min(MOST, len(dataset.train), len(dataset.test))
        self.count = most if count is None else count
        if not 2 <= self.count <= most:
            raise ValueError(
                f"count must be from 2 to {most}, as many as there are training and test images "
                f"and at most {MOST}, got {self.count}"
            )
        self._classifier, self._variables, self._shape = classifier, variables, dataset.shape
        self._references = self._classify(drawn(dataset.train, self.count))[1]
        self.held_out = self(drawn(dataset.test, self.count))
        test = data.stack(dataset.test)
        taken = self._classify(test["image"])[0].argmax(axis=1)
        self.accuracy = float(np.mean(taken == test["label"]))

    def __call__(self, images: Images) -> SampleScores:
        """Computes the scores of `count` images.

        Raises:
          ValueError: If they aren't uint8 images of the data's shape, or more or less than `count`.
        """
        images = as_images(images, "images", shape=self._shape)
        if len(images) != self.count:
            raise ValueError(
                f"images must be {self.count}, as many as they are held against, got {len(images)}"
            )
        probabilities, features = self._classify(images)
        return SampleScores(
            confidence=float(np.mean(probabilities.max(axis=1))),
            label_entropy=metrics.label_entropy(probabilities.argmax(axis=1)),
            inception_score=metrics.inception_score(probabilities),
            frechet_distance=metrics.frechet_distance(features, self._references),
        )

    def report(self, sets: Mapping[str, Images]) -> dict[str, float]:
        """Scores of sets by name, those of held-out images beside them, for `report.json`."""
        scores = {"held_out": self.held_out} | {name: self(images) for name, images in sets.items()}
        found = {
            f"{name}/{score}": value
            for name, values in scores.items()
            for score, value in values._asdict().items()
        }
        return {"classifier_accuracy": self.accuracy} | found

    def _classify(
        self, images: np.ndarray
    ) -> tuple[Float[np.ndarray, "image class"], Float[np.ndarray, "image feature"]]:
        """p(class | image) and features."""
        log_probabilities, features = image_classifier.classify(
            self._classifier, self._variables, images
        )
        return np.exp(log_probabilities), features


def open_scorer(
    dataset: data.Dataset,
    config: data.DataConfig,
    directory: training.RunDirectory,
    *,
    count: int | None = None,
    train: training.TrainConfig = image_classifier.PRESETS[PRESET].config.train,
) -> Scorer:
    """Trains a classifier within a run, or takes the one that it has, and makes scores of it.

    Its checkpoints, metrics and model are in the folder `classifier`. Stopped on the way, it goes
    on as any run does.

    Args:
      dataset: The labelled images, opened.
      config: What they were opened with; the classifier's images aren't mirrored.
      directory: The run that asks.
      count: Images in a set, by default as many as training and test images allow, up to `MOST`.
      train: How to train the classifier.

    Raises:
      ValueError: If the images have no labels, or `count` is out of range.
    """
    classifier, variables = open_classifier(dataset, config, directory, train=train)
    return Scorer(dataset, classifier, variables, count)


def open_classifier(
    dataset: data.Dataset,
    config: data.DataConfig,
    directory: training.RunDirectory,
    *,
    folder: str = "classifier",
    train: training.TrainConfig = image_classifier.PRESETS[PRESET].config.train,
) -> tuple[image_classifier.Classifier, image_classifier.PyTree]:
    """Trains a classifier in a folder of a run, or takes the one that it has, with its variables.

    Arguments and errors are those of `open_scorer`.
    """
    own = image_classifier.Config(
        dataclasses.replace(config, flip=False), train, dataset.num_classes
    )
    path = directory.path / folder
    path.mkdir(parents=True, exist_ok=True)
    beside = dataclasses.replace(
        directory,
        path=path,
        experiment="image_classifier",
        preset=PRESET,
        config=dataclasses.asdict(own),
    )
    classifier, fitted = image_classifier.fit(dataset, own, beside)
    return classifier, fitted.variables


def draw_samples(draw: Callable[[jax.Array, int], Array], key: jax.Array, count: int) -> np.ndarray:
    """Draws `count` images by `draw(key, CHUNK)`, so that one shape is compiled."""
    keys = jax.random.split(key, -(-count // CHUNK))
    return np.concatenate([np.asarray(draw(each, CHUNK)) for each in keys])[:count]


def drawn(source: data.Source, count: int) -> UInt8[np.ndarray, "image height width channel"]:
    """Images of a split, drawn at random but always the same: splits may be in order of class."""
    # RandomState's stream is frozen for ever.
    return source.gather(np.random.RandomState(0).permutation(len(source))[:count])["image"]
