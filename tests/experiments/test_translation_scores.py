"""Scores of translations of three digits, by classifiers that are trained within a run."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from experiments import _scores, export, image_classifier
from vaeflow import data, metrics, training

TRAIN = training.TrainConfig(steps=240, batch_size=32, learning_rate=0.004, scan_steps=40)
DIGITS = 3


@dataclasses.dataclass(frozen=True)
class Config:
    train: training.TrainConfig


def run_directory():
    return training.open_run_directory("run", Config(TRAIN), experiment="any", preset="one")


@pytest.fixture(scope="module", autouse=True)
def _here(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("translations"))
        yield


def three_digits(dataset):
    """The examples of a data set that are of the first three digits."""

    def chosen(source):
        labels = source.gather(np.arange(len(source)))["label"]
        return dataclasses.replace(source, rows=source.rows[labels < DIGITS])

    splits = {name: chosen(getattr(dataset, name)) for name in ("train", "validation", "test")}
    return dataclasses.replace(dataset, num_classes=DIGITS, **splits)


@pytest.fixture(scope="module")
def pair(_here):
    names = ("embedded:digits", "embedded:drawings")
    return tuple(three_digits(data.open_dataset(data.DataConfig(name))) for name in names)


@pytest.fixture(scope="module")
def scorer(pair):
    return _scores.open_translation_scorer(pair, run_directory(), train=TRAIN)


class Perfect:
    """Draws digits in styles at random, and knows the digits of the drawings."""

    def __init__(self, scorer, drawings, seed=7):
        self.scorer, self.drawings = scorer, drawings
        self.rng = np.random.RandomState(seed)

    def to_b(self, images, samples):
        repeated = np.repeat(images, samples, axis=0)
        found = self.drawings.render(repeated, self.styles(len(repeated)))
        return found.reshape(len(images), samples, *found.shape[1:])

    def to_a(self, images):
        np.testing.assert_array_equal(images, self.scorer.inputs["b"])
        return self.scorer.inputs["a"]

    def styles(self, count):
        return self.drawings.random_styles(count, self.rng)


class OneStyle(Perfect):
    def styles(self, count):
        one = self.drawings.random_styles(1, np.random.RandomState(0))
        return type(one)(*(np.repeat(entry, count) for entry in one))


class Known(_scores.TranslationScorer):
    """Has given scores, so that no classifier is trained."""

    def __init__(self):
        self.inputs = {domain: np.zeros((4, 2, 2, 1), np.uint8) for domain in "ab"}
        self.references = {"diversity/true_styles": 0.5, "diversity/real": 0.8}
        for way, untranslated in (("a_to_b", 8.0), ("b_to_a", 40.0)):
            self.references[f"frechet_distance/{way}/untranslated"] = untranslated
            self.references[f"frechet_distance/{way}/held_out"] = 0.5

    def diversity(self, translations):
        return 0.4

    def conditional_inception_score(self, translations):
        return 3.0

    def content_agreement(self, images, translations, target):
        return 0.9

    def frechet_distance(self, images, target):
        return {"a": 10.0, "b": 4.0}[target]


def test_ratios_are_to_true_styles_real_images_and_untranslated_ones():
    scorer = Known()
    found = scorer.report(
        lambda images, count: np.zeros((len(images), count, 2, 2, 1)), np.zeros_like
    )
    assert found["diversity_ratio/true_styles"] == pytest.approx(0.8)
    assert found["diversity_ratio/real"] == pytest.approx(0.5)
    assert found["frechet_ratio/a_to_b"] == pytest.approx(0.5)
    assert found["frechet_ratio/b_to_a"] == pytest.approx(0.25)
    assert scorer.references.items() <= found.items()


@pytest.mark.slow
def test_the_classifiers_know_digits_and_styles(scorer, pair):
    found = scorer.references
    assert found["classifier_accuracy/a"] > 0.95
    assert found["classifier_accuracy/b"] > 0.9
    assert found["classifier_accuracy/style"] > 0.8
    assert scorer.count == len(pair[0].test) == len(pair[1].test) > 100
    styles = data.stack(_scores.of_styles(pair[1]).test)
    np.testing.assert_array_equal(styles["label"], styles["style"])
    assert _scores.of_styles(pair[1]).num_classes == 18


@pytest.mark.slow
def test_perfect_translations_score_as_true_ones(scorer, pair):
    perfect = Perfect(scorer, pair[1].truth)
    found = scorer.report(perfect.to_b, perfect.to_a)
    assert scorer.references.items() <= found.items()
    lowest = found["classifier_accuracy/a"] + found["classifier_accuracy/b"] - 1
    for way in ("a_to_b", "b_to_a"):
        assert found[f"content_agreement/{way}"] > lowest - 0.03
    assert found["diversity_ratio/true_styles"] == pytest.approx(1, abs=0.05)
    expected = found["diversity_ratio/true_styles"] * found["diversity/true_styles"]
    assert found["diversity"] == pytest.approx(expected)
    score = "conditional_inception_score"
    assert found[score] == pytest.approx(found[f"{score}/true_styles"], rel=0.05)
    assert found[score] > 3
    distance = "frechet_distance/a_to_b"
    for reference in ("held_out", "true_styles"):
        assert found[distance] == pytest.approx(found[f"{distance}/{reference}"], rel=0.5)
    assert found["frechet_ratio/a_to_b"] < 0.1
    # The digits that the drawings were drawn from are the test images of a.
    distance = "frechet_distance/b_to_a"
    assert found[distance] == pytest.approx(found[f"{distance}/held_out"], rel=1e-9)
    ratio = found[distance] / found[f"{distance}/untranslated"]
    assert found["frechet_ratio/b_to_a"] == pytest.approx(ratio, rel=1e-12)


@pytest.mark.slow
def test_a_single_style_lowers_diversity(scorer, pair):
    single = OneStyle(scorer, pair[1].truth)
    found = scorer.report(single.to_b, single.to_a)
    assert found["diversity"] < 1e-9
    assert found["diversity_ratio/true_styles"] < 1e-9
    assert found["conditional_inception_score"] == pytest.approx(1, abs=1e-6)
    assert found["frechet_distance/a_to_b"] > 3 * found["frechet_distance/a_to_b/held_out"]


@pytest.mark.slow
def test_other_digits_lower_content_agreement(scorer, pair):
    perfect, images = Perfect(scorer, pair[1].truth), scorer.inputs["a"]
    others = np.roll(images, 1, axis=0)  # in random order: a third of them agree
    wrong = perfect.to_b(others, 1)[:, 0]
    assert scorer.content_agreement(images, wrong, "b") < 0.5
    assert scorer.content_agreement(wrong, images, "a") < 0.5
    assert scorer.content_agreement(others, wrong, "b") > 0.85
    # The distance doesn't see it.
    held_out = scorer.references["frechet_distance/a_to_b/held_out"]
    assert scorer.frechet_distance(wrong, "b") < 2 * held_out


@pytest.mark.slow
def test_references_are_those_of_real_and_untranslated_images(scorer, pair):
    found, (a, b) = scorer.references, pair
    assert found["diversity/real"] > found["diversity/true_styles"] > 0.1
    # Drawn at random, the images are still the test images.
    for name, dataset in (("a", a), ("b", b)):
        test = data.stack(dataset.test)["image"]
        assert sorted(map(bytes, test)) == sorted(map(bytes, scorer.inputs[name]))
        way = {"a": "b_to_a", "b": "a_to_b"}[name]
        expected = found[f"frechet_distance/{way}/held_out"]
        assert scorer.frechet_distance(test, name) == pytest.approx(expected, rel=1e-6)
        assert found[f"frechet_distance/{way}/untranslated"] > 10 * expected
    grey = np.uint8(np.round(scorer.inputs["b"].mean(axis=-1, keepdims=True)))
    colour = np.concatenate([scorer.inputs["a"]] * 3, axis=-1)
    for images, name, way in ((grey, "a", "b_to_a"), (colour, "b", "a_to_b")):
        expected = found[f"frechet_distance/{way}/untranslated"]
        assert scorer.frechet_distance(images, name) == pytest.approx(expected, rel=1e-9)
    random = np.random.RandomState(3).permutation(100).reshape(10, 10)
    real = scorer.diversity(scorer.inputs["b"][random])
    assert real == pytest.approx(found["diversity/real"], rel=0.1)


def opened(name):
    run = export.open_run(f"run/classifier_{name}")
    return run.module.build(run.config, run.shape), run.variables


@pytest.mark.slow
def test_the_scores_are_those_of_the_metrics(scorer, pair):
    assert export.open_run("run/classifier_style").config == image_classifier.Config(
        data.DataConfig("embedded:drawings"), TRAIN, 18
    )
    a, b, style = map(opened, ("a", "b", "style"))
    drawings, digits = scorer.inputs["b"], scorer.inputs["a"]

    def features(images, classifiers):
        found = [image_classifier.classify(*each, images)[1] for each in classifiers]
        return np.concatenate(found, axis=1)

    rows = np.random.RandomState(0).permutation(len(pair[1].train))[: scorer.count]
    for dataset, images, name, seeing in (
        (pair[0], digits, "a", [a]),
        (pair[1], drawings, "b", [b, style]),
    ):
        train = dataset.train.gather(rows)["image"]
        expected = metrics.frechet_distance(features(images, seeing), features(train, seeing))
        assert scorer.frechet_distance(images, name) == pytest.approx(expected, rel=1e-6)

    classes = [
        image_classifier.classify(*each)[0].argmax(1) for each in ((*a, digits), (*b, drawings))
    ]
    expected = np.mean(classes[0] == classes[1])
    assert scorer.content_agreement(digits, drawings, "b") == expected
    assert scorer.content_agreement(drawings, digits, "a") == expected

    samples = drawings[:24].reshape(4, 6, *drawings.shape[1:])
    layers = image_classifier.feature_maps(*style, drawings[:24])
    expected = metrics.diversity([layer.reshape(4, 6, *layer.shape[1:]) for layer in layers])
    assert scorer.diversity(samples) == pytest.approx(expected, rel=1e-9)
    probabilities = np.exp(image_classifier.classify(*style, drawings[:24])[0]).reshape(4, 6, 18)
    expected = metrics.conditional_inception_score(probabilities)
    assert scorer.conditional_inception_score(samples) == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
def test_a_run_keeps_its_classifiers(scorer, pair):
    directory = run_directory()
    paths = [directory.path / f"classifier_{name}/metrics.jsonl" for name in ("a", "b", "style")]
    lines = [path.read_bytes() for path in paths]
    again = _scores.open_translation_scorer(pair, directory, train=TRAIN)
    assert [path.read_bytes() for path in paths] == lines
    assert again.references == pytest.approx(scorer.references, rel=1e-6)


@pytest.mark.slow
def test_images_that_do_not_fit_raise_value_error(scorer, pair):
    digits, drawings = scorer.inputs["a"], scorer.inputs["b"]
    several = drawings[:20].reshape(2, 10, *drawings.shape[1:])
    with pytest.raises(ValueError, match=r"images must be \d+, as many as .*, got 9"):
        scorer.frechet_distance(drawings[:9], "b")
    with pytest.raises(ValueError, match=r"images must have images of shape \(28, 28, 1\), got"):
        scorer.frechet_distance(drawings, "a")
    with pytest.raises(ValueError, match=r"target must be one of .*, got 'c'"):
        scorer.frechet_distance(drawings, "c")
    with pytest.raises(ValueError, match=r"domain must be 'a' or 'b', got 'c'"):
        scorer.content_agreement(digits, drawings, "c")
    with pytest.raises(ValueError, match=r"images must have images of shape \(28, 28, 3\), got"):
        scorer.content_agreement(digits, digits, "a")
    with pytest.raises(ValueError, match=r"translations must have images of shape \(28, 28, 3\)"):
        scorer.diversity(several[..., :1])
    for wrong in (drawings, several[:0]):
        with pytest.raises(ValueError, match=r"shape \[input, sample, height, .*, got"):
            scorer.conditional_inception_score(wrong)
    perfect = Perfect(scorer, pair[1].truth)
    with pytest.raises(ValueError, match="must return 10 samples of each of 100 images, got"):
        scorer.report(lambda images, samples: perfect.to_b(images, samples - 1), perfect.to_a)


@pytest.mark.slow
def test_other_pairs_raise_value_error(pair):
    a, b = pair
    for wrong, message in (
        ((b, a), "b must be drawings, whose styles are known, got embedded:digits"),
        ((b, b), r"a must have the 3 digits of b, grey, .* got embedded:drawings"),
        ((dataclasses.replace(a, num_classes=4), b), "with 4 classes"),
    ):
        with pytest.raises(ValueError, match=message):
            _scores.open_translation_scorer(wrong, run_directory(), train=TRAIN)
