"""A convolutional classifier of labelled images.

Trains it, reports its accuracy on the test images, and plots its mistakes. Its class probabilities
and features score the samples of other experiments (`experiments._scores`).
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
from experiments import _cli, _figures
from vaeflow import data, losses, plotting, training
from vaeflow._util.arrays import row_keys

SHIFT = 1
"""Pixels by which training images are shifted at most, in either direction."""
CHUNK = 500
"""Images that are classified at once."""
VALIDATION = "validation_cross_entropy"

PyTree = Any


class Classified(NamedTuple):
    """The outputs of a classifier.

    Attributes:
      logits: log p(class | image), up to a constant of each image.
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


PRESETS = {
    "digits": _cli.Preset(
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
        yields="A small network for ten digits, and its mistakes. 5,000 digits are embedded; "
        "--data.source npz:PATH takes all of MNIST.",
        cost="a minute on a CPU core",
        expected={
            "accuracy": _cli.Expected(
                0.992, "LeCun et al. 1998, LeNet-5 with distortions: all of MNIST", _cli.MNIST
            )
        },
    ),
}


def build(config: Config, shape: tuple[int, int, int]) -> Classifier:
    """Builds the model; it is for images of the shape that it is initialised with."""
    del shape
    return Classifier(config.classes)


def functions(config: Config, shape: tuple[int, int, int]) -> dict[str, vf.sharing.FunctionSpec]:
    """Returns the functions that `python -m experiments.export` writes."""
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
) -> tuple[Classifier, training.TrainResult]:
    """Trains a classifier, or loads the trained one from the directory.

    The parameters are those of the evaluation with the least cross-entropy on validation.

    Raises:
      ValueError: If the data have no labels, or other classes than the configuration says.
    """
    if dataset.num_classes is None:
        raise ValueError(f"data.source must have labels to classify by, got {dataset.name}")
    _cli.check_classes("classes", config.classes, dataset.num_classes)
    model, train = build(config, dataset.shape), config.train
    first = data.stack(dataset.train, 1)["image"]
    validation = data.stack(dataset.validation)

    def evaluate(step: int, variables: PyTree) -> dict[str, float]:
        del step
        log_probabilities, _ = classify(model, variables, validation["image"])
        return {VALIDATION: float(np.mean(costs(log_probabilities, validation["label"])))}

    fitted = training.train(
        model,
        shifted_cross_entropy,
        training.Batches(dataset.train, train.batch_size, train.seed, config.data.flip),
        train,
        directory,
        initialize=lambda: jax.jit(model.init)(jax.random.key(train.seed), first),
        evaluate=evaluate,
        best=VALIDATION,  # on few images, more updates make it overconfident
    )
    directory.write_model(fitted.variables, dataset.shape)
    return model, fitted


def shifted_cross_entropy(
    model: Classifier, variables: PyTree, batch: PyTree, rng: Array, **options: Any
) -> tuple[Float[Array, ""], losses.Aux]:
    """Computes the cross-entropy of randomly shifted images."""
    keys = row_keys(rng, len(batch["image"]))
    batch = batch | {"image": jax.vmap(shifted)(batch["image"], keys)}
    return losses.cross_entropy(model, variables, batch, rng, **options)


def shifted(
    image: UInt8[Array, "height width channel"], key: Array
) -> UInt8[Array, "height width channel"]:
    """Shifts an image by `SHIFT` pixels at most, padded with its edge."""
    padded = jnp.pad(image, ((SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="edge")
    row, column = jax.random.randint(key, (2,), 0, 2 * SHIFT + 1)
    return jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)


@functools.partial(jax.jit, static_argnames="model")
def _classify(model: Classifier, variables: PyTree, images: Array) -> Classified:
    logits, features = model.apply(variables, images)
    return Classified(jax.nn.log_softmax(logits), features)


@functools.partial(jax.jit, static_argnames="model")
def _feature_maps(model: Classifier, variables: PyTree, images: Array) -> list[Array]:
    outputs = model.apply(
        variables,
        images,
        capture_intermediates=lambda module, method: (
            isinstance(module, vf.nn.Conv) and method == "__call__"
        ),
        mutable="intermediates",
    )[1]
    return list(map(vf.nn.relu, jax.tree.leaves(outputs)))  # sorted by name: Conv_0, Conv_1


def _by_chunks(
    function: Callable[[Array], Sequence[Array]],
    images: UInt8[np.ndarray, "image height width channel"],
) -> list[Float[np.ndarray, "image *values"]]:
    """Applies a compiled function to any number of images, `CHUNK` at once."""
    chunks = []
    for start in range(0, len(images), CHUNK):
        part = images[start : start + CHUNK]
        filled = part[np.arange(CHUNK) % len(part)]  # one shape is compiled
        chunks.append([values[: len(part)] for values in jax.device_get(function(filled))])
    return list(map(np.concatenate, zip(*chunks, strict=True)))


def classify(
    model: Classifier, variables: PyTree, images: UInt8[np.ndarray, "image height width channel"]
) -> tuple[Float[np.ndarray, "image class"], Float[np.ndarray, "image feature"]]:
    """Computes log p(class | image), in nats, and features of any number of images."""
    outputs = _by_chunks(functools.partial(_classify, model, variables), images)
    log_probabilities, features = (values.astype(np.float64) for values in outputs)
    return log_probabilities, features


def feature_maps(
    model: Classifier, variables: PyTree, images: UInt8[np.ndarray, "image height width channel"]
) -> list[Float[np.ndarray, "image map_height map_width feature"]]:
    """Computes the feature maps of each convolution of a classifier, for any number of images.

    They are the values after the activation, float32, for `vaeflow.metrics.diversity`.
    """
    return _by_chunks(functools.partial(_feature_maps, model, variables), images)


def costs(
    log_probabilities: Float[np.ndarray, "image class"], labels: Int[np.ndarray, " image"]
) -> Float[np.ndarray, " image"]:
    """Computes -log p(label | image), in nats."""
    return -log_probabilities[np.arange(len(labels)), labels]


def run(config: Config, directory: training.RunDirectory) -> _cli.Result:
    """Trains, measures and plots."""
    dataset = data.open_dataset(config.data)
    print(dataset)
    model, fitted = fit(dataset, config, directory)
    test = data.stack(dataset.test)
    log_probabilities, _ = classify(model, fitted.variables, test["image"])
    correct = log_probabilities.argmax(axis=1) == test["label"]
    results = {
        "accuracy": np.mean(correct),
        "mistakes": int(np.sum(~correct)),
        "cross_entropy": np.mean(costs(log_probabilities, test["label"])),
        **fitted.metrics,
    }
    if training.is_first():
        mistakes = confusions(test["image"], test["label"], log_probabilities)
        _figures.save(directory, "confusions", mistakes)
        label = "cross-entropy, nats"
        curve = _figures.training_curve(directory, "cross_entropy", label, VALIDATION)
        _figures.save(directory, "training_curve", curve)
    return _cli.Result(fitted.step, results)


def confusions(
    images: UInt8[np.ndarray, "image height width channel"],
    labels: Int[np.ndarray, " image"],
    log_probabilities: Float[np.ndarray, "image class"],
):
    """Plots an image of each label classified as each class; white where there is none.

    It is the most confident mistake and, on the diagonal, the least confident correct image.
    """
    classes = log_probabilities.shape[1]
    table = np.full((classes, classes, *images.shape[1:]), 255, np.uint8)
    taken, certainty = log_probabilities.argmax(axis=1), log_probabilities.max(axis=1)
    certainty = np.where(taken == labels, -certainty, certainty)
    for row in np.argsort(certainty, kind="stable"):  # the last one stays
        table[labels[row], taken[row]] = images[row]
    numbers = range(classes)
    return plotting.image_table(
        table, [f"label {n}" for n in numbers], [f"as {n}" for n in numbers]
    )


if __name__ == "__main__":
    _cli.main("image_classifier", PRESETS, run)
