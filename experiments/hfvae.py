"""Hierarchically factorised variational auto-encoders of images: a style and a category.

Latents are a group of normals, "style", and a Concrete variable, "category". What the category
finds is held against labels, which training never sees. Images are binarised anew at every step, so
that the likelihood is one of binary images; in expectation over the draws it is the cross entropy
of the grey levels that the paper's code minimises.

Source: Esmaeili et al. 2019, "Structured disentangled representations".
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import jax

import vaeflow as vf
from experiments import common
from experiments.hfvae_evaluation import VALIDATION, Drawing, Evaluation
from experiments.hfvae_objective import ObjectiveConfig, loss, make_weights
from vaeflow import data, nn, training

HIDDEN = (400, 200)
"""Layers of the dense encoder, and in reverse of the decoder, as in the paper."""
COST = "4 minutes on a CPU core"


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Networks and latents."""

    network: Literal["dense", "convolutional"] = "dense"
    """Networks of encoder and decoder."""
    styles: int = 10
    """Number of style latents, which are normal."""
    categories: int = 10
    """Number of categories of the discrete latent."""
    temperature: float = 0.66
    """How far samples of the category are from the corners of the simplex."""

    def __post_init__(self) -> None:
        """Refuses values out of range.

        Raises:
          ValueError: Naming the field, the value given and what is allowed.
        """
        for name, least in (("styles", 1), ("categories", 2)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"model.{name} must be at least {least}, got {getattr(self, name)}"
                )
        if not self.temperature > 0:
            raise ValueError(f"model.temperature must be above 0, got {self.temperature}")


@dataclasses.dataclass(frozen=True)
class Config:
    """A run."""

    data: data.DataConfig
    model: ModelConfig
    objective: ObjectiveConfig
    train: training.TrainConfig


def build(config: Config, shape: tuple[int, int, int]) -> vf.models.VAE:
    """Builds the model for images of a shape, which it binarises."""
    model = config.model
    posterior = vf.encoders.GroupedPosterior(
        {
            "style": vf.encoders.DiagonalGaussianPosterior(model.styles),
            "category": vf.encoders.ConcretePosterior(
                model.categories, temperature=model.temperature
            ),
        }
    )
    if model.network == "dense":
        network = vf.encoders.DenseEncoder(HIDDEN, activation=nn.relu)
        decoder = vf.decoders.DenseDecoder(HIDDEN[::-1], activation=nn.relu)
    else:
        network = vf.encoders.ConvolutionalEncoder()
        decoder = vf.decoders.ConvolutionalDecoder()
    return vf.models.VAE(
        vf.encoders.Encoder(network, posterior),
        vf.decoders.Decoder(decoder, vf.decoders.BernoulliLikelihood(), shape),
        vf.models.Binarizer(),
    )


def functions(config: Config, shape: tuple[int, int, int]) -> dict[str, vf.sharing.FunctionSpec]:
    """Lists what `python -m experiments.export` writes of the model."""
    return vf.sharing.export_functions(build(config, shape))


def run(config: Config, directory: training.RunDirectory) -> common.Result:
    """Trains, measures and draws."""
    dataset = data.open_dataset(config.data)
    print(dataset)
    model = build(config, dataset.shape)
    train = config.train
    first = data.stack(dataset.train, 500)["image"]
    evaluation = Evaluation(model)
    drawing = Drawing(model, dataset, directory)

    def evaluate(step: int, variables) -> dict[str, float]:
        found = evaluation.bound(variables, dataset.validation)
        return {f"validation_{name}": value for name, value in found.items()}

    fitted = training.fit(
        model,
        loss,
        training.Batches(dataset.train, train.batch_size, train.seed, config.data.flip),
        train,
        directory,
        initialize=lambda: jax.jit(model.init)(jax.random.key(train.seed), first),
        weights=make_weights(config.objective, train.steps, len(dataset.train)),
        figures=drawing.progress,
        evaluate=evaluate,
        best=VALIDATION if train.patience else None,
    )
    variables = fitted.variables
    directory.write_model(variables, dataset.shape)
    posterior, z = evaluation.posterior(variables, dataset.test)
    labels = data.stack(dataset.test)["label"] if dataset.num_classes is not None else None
    found = {
        **evaluation.bound(variables, dataset.test),
        **evaluation.correlations(posterior, z),
        **evaluation.category(posterior, labels),
        **fitted.metrics,
    }
    if training.is_first():
        drawing.final(variables, posterior, z)
    used = found["category_mutual_information"]
    remark = f"the category tells {used:.2f} nats of {math.log(config.model.categories):.2f}"
    return common.Result(fitted.step, found, remark)


def preset(yields: str, source: str, *, led: bool) -> common.Preset:
    """A preset that differs from others in its data, and in whether the category is led."""
    published = ObjectiveConfig()
    objective = dataclasses.replace(
        published, capacity=2.3, capacity_weight=20.0, first_style_weight=5.0, early=0.6, late=0.8
    )
    train = training.TrainConfig(
        steps=5000,
        batch_size=128,
        learning_rate=2e-3 if led else 1e-3,
        schedule="cosine" if led else "constant",
        ema_decay=0.999,
        scan_steps=100,
        log_every=100,
        evaluate_every=1000,
        checkpoint_every=1000,
    )
    config = Config(data.DataConfig(source), ModelConfig(), objective if led else published, train)
    return common.Preset(config, yields=yields, cost=COST)
