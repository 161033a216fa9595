"""Scores of translations between digits and drawings of digits, whose content and style are known.

Three classifiers are trained within the run that asks, from one seed: of the digit in images of
either domain, and of the style of drawings. Runs on the same data have the same ones, and their
scores can be compared. Scores by other networks, published ones included, can't.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from experiments import image_classifier
from experiments.image_scores import drawn, open_classifier
from vaeflow import data, metrics, training
from vaeflow.metrics._inputs import as_images
from vaeflow.models.munit import Domain, other_domain

INPUTS = 100
"""Inputs that are translated to several samples, as in Huang et al. 2018, section 5.2."""
SAMPLES = 10
"""Samples of each of them."""
SEEN_BY = {"a": ("a",), "b": ("b", "style")}
"""The classifiers whose features tell images of a domain apart."""
TRAIN = dataclasses.replace(
    image_classifier.PRESETS["digits"].config.train, steps=4000, batch_size=64, evaluate_every=800
)
"""A minute on a CPU core for each classifier; with 3,000 steps that of digits in drawings is right
on less than 97 % of the test images."""

Images = UInt8[np.ndarray, "image height width channel"]
Samples = UInt8[np.ndarray, "input sample height width channel"]


class Trained(NamedTuple):
    """A classifier and its variables."""

    model: image_classifier.Classifier
    variables: image_classifier.PyTree

    def probabilities(self, images: Images) -> Float[np.ndarray, "image class"]:
        return np.exp(image_classifier.classify(*self, images)[0])

    def classes(self, images: Images) -> Int[np.ndarray, " image"]:
        return image_classifier.classify(*self, images)[0].argmax(axis=1)

    def features(self, images: Images) -> Float[np.ndarray, "image feature"]:
        return image_classifier.classify(*self, images)[1]

    def maps(self, images: Images) -> list[Float[np.ndarray, "image map_height map_width feature"]]:
        return image_classifier.feature_maps(*self, images)

    def accuracy(self, dataset: data.Dataset) -> float:
        """The share of all test images that are taken for what they are."""
        test = data.stack(dataset.test)
        return metrics.agreement(test["label"], self.classes(test["image"]))


class TranslationScorer:
    """Holds translations between a, grey digits, and b, drawings, against real images.

    Each score has beside it, in `references`, that of images which need no model:

    - ``true_styles``: digits of a drawn in styles at random, the best translations to b there are;
    - ``real``: drawings of b put together at random, which differ in their digits as well;
    - ``untranslated``: images of the other domain, digits with three equal channels and drawings
      with the mean of theirs;
    - ``held_out``: test images of the domain itself. The classifiers were fitted to the training
      images, so that their distance is a little more than that of two sets of data would be.

    Estimates of a Fréchet distance are too high by an amount that depends on the number of rows. So
    all are of `count` images against the same `count` training images, drawn at random once.

    Attributes:
      count: Images in a set: as many as there are test images of a domain, or training images.
      inputs: `count` test images of each domain, "a" and "b", in random order: what to translate.
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
        self.inputs = {"a": drawn(a.test, self.count), "b": drawn(b.test, self.count)}
        self._trained_on = {
            "a": self._features("a", drawn(a.train, self.count)),
            "b": self._features("b", drawn(b.train, self.count)),
        }
        accuracies = {
            f"classifier_accuracy/{name}": classifiers[name].accuracy(dataset)
            for name, dataset in {"a": a, "b": b, "style": of_styles(b)}.items()
        }
        self.references = accuracies | self._reference_scores(b.truth)

    def content_agreement(self, images: Images, translations: Images, target: Domain) -> float:
        """Computes how many images are of the digit that their translations are of.

        The classifier of the other domain looks at `images`, that of the `target` at
        `translations`.
        """
        source = other_domain(target)
        before = self._checked(images, "images", source)
        after = self._checked(translations, "translations", target)
        return metrics.agreement(
            self._classifiers[source].classes(before), self._classifiers[target].classes(after)
        )

    def diversity(self, translations: Samples) -> float:
        """Computes how much translations to b of an input differ (`vaeflow.metrics.diversity`).

        The layers are the convolutions of the classifier of styles. In those of the classifier of
        digits it is the digits that differ, and styles hardly do.
        """
        images, shape = self._samples(translations)
        maps = self._classifiers["style"].maps(images)
        return metrics.diversity([layer.reshape(*shape, *layer.shape[1:]) for layer in maps])

    def conditional_inception_score(self, translations: Samples) -> float:
        """Computes how many styles the translations to b of an input have, and how surely."""
        images, shape = self._samples(translations)
        probabilities = self._classifiers["style"].probabilities(images)
        return metrics.conditional_inception_score(probabilities.reshape(*shape, -1))

    def frechet_distance(self, images: Images, target: Domain) -> float:
        """Computes the distance of `count` images from training images of `target`.

        The features are those of its classifier, for b those of both.
        """
        images = self._checked(images, "images", target)
        if len(images) != self.count:
            raise ValueError(
                f"images must be {self.count}, as many as they are held against, got {len(images)}"
            )
        return metrics.frechet_distance(self._features(target, images), self._trained_on[target])

    def report(
        self,
        translate_b: Callable[[Images, int], Samples],
        translate_a: Callable[[Images], Images],
    ) -> dict[str, float]:
        """Computes all scores of a model, by name, and the references, for `report.json`.

        ``diversity_ratio`` is to that of true styles, 1 of a perfect model, and to that of real
        drawings, which is less as their digits differ too; ``frechet_ratio`` to
        the distance of the untranslated images, which a model that does nothing has for 1.

        Args:
          translate_b: From images of a and a number of samples to so many translations of each.
          translate_a: From images of b to a translation of each.
        """
        several = self._translated(translate_b, self.inputs["a"][:INPUTS], SAMPLES)
        one = {
            "b": self._translated(translate_b, self.inputs["a"], 1)[:, 0],
            "a": translate_a(self.inputs["b"]),
        }
        found = {
            "diversity": self.diversity(several),
            "conditional_inception_score": self.conditional_inception_score(several),
        }
        for name in ("true_styles", "real"):
            reference = self.references[f"diversity/{name}"]
            found[f"diversity_ratio/{name}"] = found["diversity"] / reference
        for target, images in one.items():
            source = other_domain(target)
            way = f"{source}_to_{target}"
            distance = self.frechet_distance(images, target)
            untranslated = self.references[f"frechet_distance/{way}/untranslated"]
            found |= {
                f"content_agreement/{way}": self.content_agreement(
                    self.inputs[source], images, target
                ),
                f"frechet_distance/{way}": distance,
                f"frechet_ratio/{way}": distance / untranslated,
            }
        return found | self.references

    def _reference_scores(self, drawings: data.ColoredDigits) -> dict[str, float]:
        rng = np.random.RandomState(1)
        digits, own = self.inputs["a"], self.inputs["b"]
        several = np.repeat(digits[:INPUTS], SAMPLES, axis=0)
        true = drawings.render(several, drawings.random_styles(len(several), rng))
        true = true.reshape(-1, SAMPLES, *true.shape[1:])
        real = np.stack([own[rng.permutation(self.count)[:SAMPLES]] for _ in true])
        single = drawings.render(digits, drawings.random_styles(self.count, rng))
        grey = np.round(np.mean(own, axis=-1, keepdims=True)).astype(np.uint8)
        return {
            "content_agreement/true_styles": self.content_agreement(digits, single, "b"),
            "diversity/true_styles": self.diversity(true),
            "diversity/real": self.diversity(real),
            "conditional_inception_score/true_styles": self.conditional_inception_score(true),
            "frechet_distance/a_to_b/true_styles": self.frechet_distance(single, "b"),
            "frechet_distance/a_to_b/held_out": self.frechet_distance(own, "b"),
            "frechet_distance/b_to_a/held_out": self.frechet_distance(digits, "a"),
            "frechet_distance/a_to_b/untranslated": self.frechet_distance(
                np.repeat(digits, 3, axis=-1), "b"
            ),
            "frechet_distance/b_to_a/untranslated": self.frechet_distance(grey, "a"),
        }

    def _translated(
        self, translate_b: Callable[[Images, int], Samples], images: Images, samples: int
    ) -> Samples:
        found = np.asarray(translate_b(images, samples))
        if found.shape[:2] != (len(images), samples):
            raise ValueError(
                f"translate_b must return {samples} samples of each of {len(images)} images, got "
                f"shape {found.shape}"
            )
        return found

    def _features(self, domain: Domain, images: Images) -> Float[np.ndarray, "image feature"]:
        found = [self._classifiers[name].features(images) for name in SEEN_BY[domain]]
        return np.concatenate(found, axis=1)

    def _checked(self, images: Images, name: str, domain: Domain) -> Images:
        if domain not in self._shapes:
            raise ValueError(f"target must be one of {[*self._shapes]}, got {domain!r}")
        return as_images(images, name, shape=self._shapes[domain])

    def _samples(self, translations: Samples) -> tuple[Images, tuple[int, int]]:
        """Translations to b in one row, and how many there are of how many inputs."""
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
    train: training.TrainConfig = TRAIN,
) -> TranslationScorer:
    """Trains the classifiers within a run, or takes those that it has, and makes scores of them.

    They are in the folders `classifier_a`, `classifier_b` and `classifier_style`. Stopped on the
    way, they go on as any run does.

    Args:
      pair: Labelled grey digits, and ``embedded:drawings``, opened.
      directory: The run that asks.
      fold: What both were opened with.
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
    """The same drawings, labelled by the class of their style."""

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
