"""A convolutional classifier of labelled images.

Trains it, reports how many test images it takes for what they are, and draws those that it doesn't.
The samples of other experiments are held against data by what it makes of them
(`experiments.image_scores`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

import vaeflow as vf
from experiments import common
from vaeflow import data, losses, plotting, training
from vaeflow._util.random import row_keys

SHIFT = 1
"""Pixels by which training images are moved at most, in either direction."""
CHUNK = 500
"""Images that are classified at once."""
VALIDATION = "validation_cross_entropy"

PyTree = Any


class Classified(NamedTuple):
    """What a classifier makes of images.

    Attributes:
      logits: log p(class | image), but for a constant of each image.
      features: The last hidden layer, which the logits are linear in.
    """

    logits: Float[Array, "batch class"]
    features: Float[Array, "batch feature"]


class Classifier(nn.Module):
    """Two convolutions, a hidden layer of 128 features, and logits that are linear in them.

    Attributes:
      classes: Number of classes.
    """

    classes: int

    @nn.compact
    def __call__(self, images: UInt8[Array, "batch height width channel"]) -> Classified:
        network = vf.encoders.ConvolutionalEncoder((16, 32), features=128)
        features = network(images.astype(jnp.float32) / 255)
        return Classified(nn.Dense(self.classes)(features), features)

    def logits(
        self, images: UInt8[Array, "batch height width channel"]
    ) -> Float[Array, "batch class"]:
        return self(images).logits


@dataclasses.dataclass(frozen=True)
class Config:
    """A run."""

    data: data.DataConfig
    train: training.TrainConfig
    classes: int = 10
    """Number of classes, which must be that of the data."""


def build(config: Config, shape: tuple[int, int, int]) -> Classifier:
    """Builds the model; it is for images of the shape that it is initialised with."""
    del shape
    return Classifier(config.classes)


def functions(config: Config, shape: tuple[int, int, int]) -> dict[str, vf.sharing.FunctionSpec]:
    """Lists what `python -m experiments.export` writes of the model."""
    model = build(config, shape)
    arguments = {"images": vf.sharing.ArgumentSpec(("b", *shape), jnp.uint8, "images, 0 to 255")}

    def log_probabilities(variables: PyTree, images: Array) -> Array:
        return jax.nn.log_softmax(model.apply(variables, images).logits)

    def features(variables: PyTree, images: Array) -> Array:
        return model.apply(variables, images).features

    return {
        "log_probabilities": vf.sharing.FunctionSpec(
            log_probabilities, arguments, "log p(class | image) of each class, nats"
        ),
        "features": vf.sharing.FunctionSpec(features, arguments, "the last hidden layer"),
    }


def fit(
    dataset: data.Dataset, config: Config, directory: training.RunDirectory
) -> tuple[Classifier, training.FitResult]:
    """Trains a classifier, or takes the trained one that the directory holds.

    Of the parameters evaluated on the way, those of the least cross-entropy on validation are kept.

    Raises:
      ValueError: If the data have no labels, or other classes than the configuration says.
    """
    if dataset.num_classes is None:
        raise ValueError(f"data.source must have labels to classify by, got {dataset.name}")
    if dataset.num_classes != config.classes:
        raise ValueError(
            f"classes must be that of the data, {dataset.num_classes}, got {config.classes}"
        )
    model, train = build(config, dataset.shape), config.train
    first = data.stack(dataset.train, 1)["image"]
    validation = data.stack(dataset.validation)

    def evaluate(step: int, variables: PyTree) -> dict[str, float]:
        del step
        log_probabilities, _ = classify(model, variables, validation["image"])
        return {VALIDATION: float(np.mean(costs(log_probabilities, validation["label"])))}

    fitted = training.fit(
        model,
        shifted_cross_entropy,
        training.Batches(dataset.train, train.batch_size, train.seed, config.data.flip),
        train,
        directory,
        initialize=lambda: jax.jit(model.init)(jax.random.key(train.seed), first),
        evaluate=evaluate,
        best=VALIDATION,  # of few images, more updates make it too sure
    )
    directory.write_model(fitted.variables, dataset.shape)
    return model, fitted


def shifted_cross_entropy(
    model: Classifier, variables: PyTree, batch: PyTree, rng: Array, **options: Any
) -> tuple[Float[Array, ""], losses.Aux]:
    """The cross-entropy of images that are moved at random."""
    keys = row_keys(rng, len(batch["image"]))
    batch = batch | {"image": jax.vmap(shifted)(batch["image"], keys)}
    return losses.cross_entropy(model, variables, batch, rng, **options)


def shifted(
    image: UInt8[Array, "height width channel"], key: Array
) -> UInt8[Array, "height width channel"]:
    """Moves an image by `SHIFT` pixels at most; what comes in is like the edge."""
    padded = jnp.pad(image, ((SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="edge")
    row, column = jax.random.randint(key, (2,), 0, 2 * SHIFT + 1)
    return jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)


@functools.partial(jax.jit, static_argnames="model")
def _classify(model: Classifier, variables: PyTree, images: Array) -> Classified:
    logits, features = model.apply(variables, images)
    return Classified(jax.nn.log_softmax(logits), features)


@functools.partial(jax.jit, static_argnames="model")
def _feature_maps(model: Classifier, variables: PyTree, images: Array) -> list[Array]:
    found = model.apply(
        variables,
        images,
        capture_intermediates=lambda module, method: (
            isinstance(module, vf.nn.Conv) and method == "__call__"
        ),
        mutable="intermediates",
    )[1]
    return list(map(vf.nn.relu, jax.tree.leaves(found)))  # sorted by name: Conv_0, Conv_1


def _by_chunks(
    function: Callable[[Array], Sequence[Array]],
    images: UInt8[np.ndarray, "image height width channel"],
) -> list[Float[np.ndarray, "image *values"]]:
    """Applies a compiled function to any number of images, always so many at once."""
    found = []
    for start in range(0, len(images), CHUNK):
        part = images[start : start + CHUNK]
        filled = part[np.arange(CHUNK) % len(part)]  # one shape is compiled
        found.append([values[: len(part)] for values in jax.device_get(function(filled))])
    return list(map(np.concatenate, zip(*found, strict=True)))


def classify(
    model: Classifier, variables: PyTree, images: UInt8[np.ndarray, "image height width channel"]
) -> tuple[Float[np.ndarray, "image class"], Float[np.ndarray, "image feature"]]:
    """Computes log p(class | image), in nats, and features of any number of images."""
    found = _by_chunks(functools.partial(_classify, model, variables), images)
    log_probabilities, features = (values.astype(np.float64) for values in found)
    return log_probabilities, features


def feature_maps(
    model: Classifier, variables: PyTree, images: UInt8[np.ndarray, "image height width channel"]
) -> list[Float[np.ndarray, "image map_height map_width feature"]]:
    """Computes what each convolution of a classifier finds in any number of images.

    They are the values after the activation, float32, for `vaeflow.metrics.samples`.
    """
    return _by_chunks(functools.partial(_feature_maps, model, variables), images)


def costs(
    log_probabilities: Float[np.ndarray, "image class"], labels: Int[np.ndarray, " image"]
) -> Float[np.ndarray, " image"]:
    """-log p(label | image), in nats."""
    return -log_probabilities[np.arange(len(labels)), labels]


def run(config: Config, directory: training.RunDirectory) -> common.Result:
    """Trains, measures and draws."""
    dataset = data.open_dataset(config.data)
    print(dataset)
    model, fitted = fit(dataset, config, directory)
    test = data.stack(dataset.test)
    log_probabilities, _ = classify(model, fitted.variables, test["image"])
    right = log_probabilities.argmax(axis=1) == test["label"]
    found = {
        "accuracy": np.mean(right),
        "mistakes": int(np.sum(~right)),
        "cross_entropy": np.mean(costs(log_probabilities, test["label"])),
        **fitted.metrics,
    }
    if training.is_first():
        curves = {"training batches": "cross_entropy", "validation": VALIDATION}
        records = directory.read_metrics()
        for name, figure in {
            "confusions": confusions(test["image"], test["label"], log_probabilities),
            "training_curve": plotting.training_curve(records, curves, {}, "cross-entropy, nats"),
        }.items():
            plotting.save_figure(directory.figures / f"{name}.png", figure)
    return common.Result(fitted.step, found)


def confusions(
    images: UInt8[np.ndarray, "image height width channel"],
    labels: Int[np.ndarray, " image"],
    log_probabilities: Float[np.ndarray, "image class"],
):
    """Draws an image of each label taken for each class; white where there is none.

    It is the one whose mistake the classifier is most sure of and, on the diagonal, where there is
    no mistake, the one that it is least sure of.
    """
    classes = log_probabilities.shape[1]
    table = np.full((classes, classes, *images.shape[1:]), 255, np.uint8)
    taken, certainty = log_probabilities.argmax(axis=1), log_probabilities.max(axis=1)
    certainty = np.where(taken == labels, -certainty, certainty)
    for row in np.argsort(certainty, kind="stable"):  # the last one stays
        table[labels[row], taken[row]] = images[row]
    numbers = range(classes)
    return plotting.image_table(table, list(map(str, numbers)), [f"as {n}" for n in numbers])


PRESETS = {
    "digits": common.Preset(
        Config(
            data.DataConfig("embedded:digits"),
            training.TrainConfig(
                steps=3000,
                batch_size=128,
                learning_rate=2e-3,
                schedule="cosine",
                scan_steps=100,
                log_every=20,
                evaluate_every=500,
                patience=2,
                checkpoint_every=1000,
            ),
        ),
        yields="A small network for ten digits, and those that it takes for others. 5,000 digits "
        "are embedded; --data.source npz:PATH takes all of MNIST.",
        cost="a minute on a CPU core",
        expected={
            "accuracy": common.Expected(
                0.992, "LeCun et al. 1998, LeNet-5 with distortions: all of MNIST"
            )
        },
    ),
}

if __name__ == "__main__":
    common.main("image_classifier", PRESETS, run)
