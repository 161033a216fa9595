"""Scores of samples and of translations, by classifiers trained within the run.

The classifiers are trained from one seed in folders of the run: runs on the same data have the same
ones, and their scores can be compared. Scores by other classifiers, published ones included, can't.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from experiments import image_classifier
from experiments._evaluation import progress_bar
from vaeflow import data, metrics, training
from vaeflow.metrics._inputs import as_images
from vaeflow.models.munit import Domain, other_domain

MOST = 10_000
"""Images that are scored, where the data have as many."""
CHUNK = 500
"""Samples generated at once."""
PRESET = "digits"
"""Preset of the classifier."""
TRAIN = image_classifier.PRESETS[PRESET].config.train
"""Training of the classifier of samples."""
TRANSLATION_TRAIN = dataclasses.replace(TRAIN, steps=4000, batch_size=64, evaluate_every=800)
"""Training of each classifier of translations, a minute on a CPU core; with 3,000 steps that of
digits in drawings is right on less than 97 % of the test images."""
INPUTS = 100
"""Inputs that are translated to several samples, as in Huang et al. 2018, section 5.2."""
SAMPLES = 10
"""Samples of each of them."""
SEEN_BY = {"a": ("a",), "b": ("b", "style")}
"""The classifiers whose features the distances of a domain are of."""

Images = UInt8[np.ndarray | Array, "image height width channel"]
Samples = UInt8[np.ndarray, "input sample height width channel"]


class SampleScores(NamedTuple):
    """Scores of a set of images by a classifier.

    Attributes:
      confidence: The mean of max_y p(y | x): near 1 where each image is clearly of one class, but
        also for images unlike the data, such as noise; the distance separates these.
      label_entropy: Of the most probable classes, in nats (`vaeflow.metrics.label_entropy`): how
        evenly they occur.
      inception_score: Both in one, from 1 to the number of classes
        (`vaeflow.metrics.inception_score`).
      frechet_distance: Between the features of the images and those of as many training images
        (`vaeflow.metrics.frechet_distance`).
    """

    confidence: float
    label_entropy: float
    inception_score: float
    frechet_distance: float


class Scorer:
    """Compares sets of images with the training images of a data set.

    Estimates of a Fréchet distance are too high by an amount that depends on the number of rows. So
    all sets are of `count` images and are compared with the same `count` training images, a random
    subset. `held_out` are the scores of `count` test images, those of perfect samples. The
    classifier was fitted to the training images, so that the distance of the test images is a
    little more than that of two sets of data would be.

    Attributes:
      accuracy: Accuracy of the classifier on all test images.
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
        self._references = self._classify(random_subset(dataset.train, self.count))[1]
        self.held_out = self(random_subset(dataset.test, self.count))
        test = data.stack(dataset.test)
        classes = self._classify(test["image"])[0].argmax(axis=1)
        self.accuracy = float(np.mean(classes == test["label"]))

    def __call__(self, images: Images) -> SampleScores:
        """Computes the scores of `count` images.

        Raises:
          ValueError: If they aren't uint8 images of the data's shape, or more or less than `count`.
        """
        images = as_images(images, "images", shape=self._shape)
        if len(images) != self.count:
            raise ValueError(
                f"images must be {self.count}, as many as the references, got {len(images)}"
            )
        probabilities, features = self._classify(images)
        return SampleScores(
            confidence=float(np.mean(probabilities.max(axis=1))),
            label_entropy=metrics.label_entropy(probabilities.argmax(axis=1)),
            inception_score=metrics.inception_score(probabilities),
            frechet_distance=metrics.frechet_distance(features, self._references),
        )

    def report(self, sets: Mapping[str, Images]) -> dict[str, float]:
        """Scores sets by name and held-out images, for `report.json`."""
        scores = {"held_out": self.held_out} | {name: self(images) for name, images in sets.items()}
        values_by_name = {
            f"{name}/{score}": value
            for name, values in scores.items()
            for score, value in values._asdict().items()
        }
        return {"classifier_accuracy": self.accuracy} | values_by_name

    def _classify(
        self, images: np.ndarray
    ) -> tuple[Float[np.ndarray, "image class"], Float[np.ndarray, "image feature"]]:
        """Returns p(class | image) and features."""
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
    train: training.TrainConfig = TRAIN,
) -> Scorer:
    """Trains a classifier within a run, or loads the run's, and returns a scorer.

    Its checkpoints, metrics and model are in the folder `classifier`.

    Args:
      dataset: The labelled images, opened.
      config: Their configuration; the classifier's images aren't mirrored.
      directory: The run.
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
    train: training.TrainConfig = TRAIN,
) -> tuple[image_classifier.Classifier, image_classifier.PyTree]:
    """Trains a classifier in a folder of a run, or loads it, and returns it with its variables.

    Arguments and errors are those of `open_scorer`.
    """
    classifier_config = image_classifier.Config(
        dataclasses.replace(config, flip=False), train, dataset.num_classes
    )
    path = directory.path / folder
    path.mkdir(parents=True, exist_ok=True)
    inner = dataclasses.replace(
        directory,
        path=path,
        experiment="image_classifier",
        preset=PRESET,
        config=dataclasses.asdict(classifier_config),
    )
    classifier, fitted = image_classifier.fit(dataset, classifier_config, inner)
    return classifier, fitted.variables


def draw_samples(draw: Callable[[jax.Array, int], Array], key: jax.Array, count: int) -> np.ndarray:
    """Samples `count` images by `draw(key, CHUNK)`, so that one shape is compiled."""
    chunks = []
    with progress_bar(count, "samples") as bar:
        for chunk_key in jax.random.split(key, -(-count // CHUNK)):
            chunks.append(np.asarray(draw(chunk_key, CHUNK)))
            bar.update(min(CHUNK, count - bar.n))
    return np.concatenate(chunks)[:count]


def random_subset(source: data.Source, count: int) -> Images:
    """Returns a random but fixed subset of a split's images: splits may be in order of class."""
    # RandomState's stream is frozen for ever.
    return source.gather(np.random.RandomState(0).permutation(len(source))[:count])["image"]


class Trained(NamedTuple):
    """A classifier and its variables."""

    model: image_classifier.Classifier
    variables: image_classifier.PyTree

    def classes(self, images: Images) -> Int[np.ndarray, " image"]:
        return image_classifier.classify(*self, images)[0].argmax(axis=1)

    def features(self, images: Images) -> Float[np.ndarray, "image feature"]:
        return image_classifier.classify(*self, images)[1]

    def accuracy(self, dataset: data.Dataset) -> float:
        """Computes the accuracy on all test images."""
        test = data.stack(dataset.test)
        return metrics.agreement(test["label"], self.classes(test["image"]))


class TranslationScorer:
    """Compares translations between a, grey digits, and b, drawings, with real images.

    `references` has the scores of images that need no model:

    - ``true_styles``: digits of a in random styles, perfect translations to b;
    - ``real``: random drawings of b, which differ in their digits as well;
    - ``untranslated``: images of the other domain, digits with three equal channels and drawings
      with the mean of theirs;
    - ``held_out``: test images of the domain itself. The classifiers were fitted to the training
      images, so that their distance is a little more than that of two sets of data would be.

    Estimates of a Fréchet distance are too high by an amount that depends on the number of rows. So
    all are of `count` images and the same `count` training images, a random subset.

    Attributes:
      count: Images in a set: as many as there are test images of a domain, or training images.
      inputs: `count` test images of each domain, "a" and "b", in random order, to translate.
      references: Scores that need no model, by name, the accuracies of classifiers among them.
    """

    def __init__(
        self,
        pair: tuple[data.Dataset, data.Dataset],
        classifiers: Mapping[Literal["a", "b", "style"], Trained],
    ):
        a, b = _checked(*pair)
        self._shapes = {"a": a.shape, "b": b.shape}
        self._classifiers = classifiers
        self.count = min(len(split) for each in (a, b) for split in (each.train, each.test))
        self.inputs = {
            "a": random_subset(a.test, self.count),
            "b": random_subset(b.test, self.count),
        }
        self._trained_on = {
            "a": self._features("a", random_subset(a.train, self.count)),
            "b": self._features("b", random_subset(b.train, self.count)),
        }
        accuracies = {
            f"classifier_accuracy/{name}": classifiers[name].accuracy(dataset)
            for name, dataset in {"a": a, "b": b, "style": of_styles(b)}.items()
        }
        self.references = accuracies | self._reference_scores(b.truth)

    def content_agreement(self, images: Images, translations: Images, target: Domain) -> float:
        """Computes the share of images whose digit is that of their translation.

        The digits are those of the classifier of the other domain for `images`, and of that of the
        `target` for `translations`.
        """
        source = other_domain(target)
        before = self._checked(images, "images", source)
        after = self._checked(translations, "translations", target)
        return metrics.agreement(
            self._classifiers[source].classes(before), self._classifiers[target].classes(after)
        )

    def diversity(self, translations: Samples) -> float:
        """Computes the diversity of translations to b of an input (`vaeflow.metrics.diversity`).

        The layers are the convolutions of the classifier of styles. In those of the classifier of
        digits it is the digits that differ, and styles hardly do.
        """
        images, shape = self._samples(translations)
        maps = image_classifier.feature_maps(*self._classifiers["style"], images)
        return metrics.diversity([layer.reshape(*shape, *layer.shape[1:]) for layer in maps])

    def conditional_inception_score(self, translations: Samples) -> float:
        """Computes the conditional inception score of styles, of the translations to b."""
        images, shape = self._samples(translations)
        probabilities = np.exp(image_classifier.classify(*self._classifiers["style"], images)[0])
        return metrics.conditional_inception_score(probabilities.reshape(*shape, -1))

    def frechet_distance(self, images: Images, target: Domain) -> float:
        """Computes the distance of `count` images from training images of `target`.

        The features are those of its classifier, for b those of both.
        """
        images = self._checked(images, "images", target)
        if len(images) != self.count:
            raise ValueError(
                f"images must be {self.count}, as many as the references, got {len(images)}"
            )
        return metrics.frechet_distance(self._features(target, images), self._trained_on[target])

    def report(
        self,
        translate_b: Callable[[Images, int], Samples],
        translate_a: Callable[[Images], Images],
    ) -> dict[str, float]:
        """Computes all scores of a model, by name, and the references, for `report.json`.

        ``diversity_ratio`` is to that of true styles, 1 for a perfect model, and to that of real
        drawings, whose digits differ too; ``frechet_ratio`` is to the distance of the untranslated
        images, 1 for the identity.

        Args:
          translate_b: From images of a and a number of samples to so many translations of each.
          translate_a: From images of b to a translation of each.
        """
        several = self._translated(translate_b, self.inputs["a"][:INPUTS], SAMPLES)
        one = {
            "b": self._translated(translate_b, self.inputs["a"], 1)[:, 0],
            "a": translate_a(self.inputs["b"]),
        }
        results = {
            "diversity": self.diversity(several),
            "conditional_inception_score": self.conditional_inception_score(several),
        }
        for name in ("true_styles", "real"):
            reference = self.references[f"diversity/{name}"]
            results[f"diversity_ratio/{name}"] = results["diversity"] / reference
        for target, images in one.items():
            source = other_domain(target)
            path = f"{source}_to_{target}"
            distance = self.frechet_distance(images, target)
            untranslated = self.references[f"frechet_distance/{path}/untranslated"]
            results |= {
                f"content_agreement/{path}": self.content_agreement(
                    self.inputs[source], images, target
                ),
                f"frechet_distance/{path}": distance,
                f"frechet_ratio/{path}": distance / untranslated,
            }
        return results | self.references

    def _reference_scores(self, drawings: data.ColoredDigits) -> dict[str, float]:
        rng = np.random.RandomState(1)
        digits, real_drawings = self.inputs["a"], self.inputs["b"]
        several = np.repeat(digits[:INPUTS], SAMPLES, axis=0)
        true = drawings.render(several, drawings.random_styles(len(several), rng))
        true = true.reshape(-1, SAMPLES, *true.shape[1:])
        real = np.stack([real_drawings[rng.permutation(self.count)[:SAMPLES]] for _ in true])
        single = drawings.render(digits, drawings.random_styles(self.count, rng))
        grey = np.round(np.mean(real_drawings, axis=-1, keepdims=True)).astype(np.uint8)
        return {
            "content_agreement/true_styles": self.content_agreement(digits, single, "b"),
            "diversity/true_styles": self.diversity(true),
            "diversity/real": self.diversity(real),
            "conditional_inception_score/true_styles": self.conditional_inception_score(true),
            "frechet_distance/a_to_b/true_styles": self.frechet_distance(single, "b"),
            "frechet_distance/a_to_b/held_out": self.frechet_distance(real_drawings, "b"),
            "frechet_distance/b_to_a/held_out": self.frechet_distance(digits, "a"),
            "frechet_distance/a_to_b/untranslated": self.frechet_distance(
                np.repeat(digits, 3, axis=-1), "b"
            ),
            "frechet_distance/b_to_a/untranslated": self.frechet_distance(grey, "a"),
        }

    def _translated(
        self, translate_b: Callable[[Images, int], Samples], images: Images, samples: int
    ) -> Samples:
        translations = np.asarray(translate_b(images, samples))
        if translations.shape[:2] != (len(images), samples):
            raise ValueError(
                f"translate_b must return {samples} samples of each of {len(images)} images, got "
                f"shape {translations.shape}"
            )
        return translations

    def _features(self, domain: Domain, images: Images) -> Float[np.ndarray, "image feature"]:
        features = [self._classifiers[name].features(images) for name in SEEN_BY[domain]]
        return np.concatenate(features, axis=1)

    def _checked(self, images: Images, name: str, domain: Domain) -> Images:
        if domain not in self._shapes:
            raise ValueError(f"target must be one of {[*self._shapes]}, got {domain!r}")
        return as_images(images, name, shape=self._shapes[domain])

    def _samples(self, translations: Samples) -> tuple[Images, tuple[int, int]]:
        """Flattens translations to b; returns them with the numbers of inputs and samples."""
        translations = np.asarray(translations)
        if translations.ndim != 5 or not translations.size:
            raise ValueError(
                "translations must have shape [input, sample, height, width, channel], none empty, "
                f"got {translations.shape}"
            )
        images = translations.reshape(-1, *translations.shape[2:])
        return self._checked(images, "translations", "b"), translations.shape[:2]


def open_translation_scorer(
    pair: tuple[data.Dataset, data.Dataset],
    directory: training.RunDirectory,
    *,
    fold: int = 0,
    train: training.TrainConfig = TRANSLATION_TRAIN,
) -> TranslationScorer:
    """Trains the three classifiers within a run, or loads the run's, and returns a scorer.

    They are of the digit in images of either domain and of the style of drawings, in the folders
    `classifier_a`, `classifier_b` and `classifier_style`.

    Args:
      pair: Labelled grey digits, and ``embedded:drawings``, opened.
      directory: The run.
      fold: The fold that both were opened with.
      train: How to train each classifier.

    Raises:
      ValueError: If the pair is another.
    """
    a, b = _checked(*pair)
    classifiers = {}
    for name, dataset in {"a": a, "b": b, "style": of_styles(b)}.items():
        config = data.DataConfig(dataset.name, fold=fold)
        folder = f"classifier_{name}"
        classifiers[name] = Trained(
            *open_classifier(dataset, config, directory, folder=folder, train=train)
        )
    return TranslationScorer(pair, classifiers)


def of_styles(drawings: data.Dataset) -> data.Dataset:
    """Returns the same drawings, labelled by the class of their style."""

    def labelled(source: data.Source) -> data.Source:
        def read(rows: np.ndarray) -> dict[str, np.ndarray]:
            batch = source.read(rows)
            return batch | {"label": batch["style"]}

        return dataclasses.replace(source, read=read)

    splits = {name: labelled(getattr(drawings, name)) for name in ("train", "validation", "test")}
    return dataclasses.replace(drawings, num_classes=drawings.truth.num_styles, **splits)


def _checked(a: data.Dataset, b: data.Dataset) -> tuple[data.Dataset, data.Dataset]:
    if not isinstance(b.truth, data.ColoredDigits):
        raise ValueError(f"b must be drawings, whose styles are known, got {b.name}")
    if a.num_classes != b.num_classes or a.shape != (*b.shape[:2], 1):
        raise ValueError(
            f"a must have the {b.num_classes} digits of b, grey, of shape {(*b.shape[:2], 1)}, got "
            f"{a.name} with {a.num_classes} classes of shape {a.shape}"
        )
    return a, b
