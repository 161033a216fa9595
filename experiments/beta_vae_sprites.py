"""Disentangling objectives on sprites, whose five factors are known, under one protocol.

Trains one objective, measures how its latents relate to shape, scale, rotation, x and y, and plots
the effect of each latent. `python -m benchmarks.sprites` runs all of them over several seeds.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax

import vaeflow as vf
from experiments import _cli, _evaluation, _figures
from experiments._evaluation import VALIDATION, measure
from vaeflow import data, losses, metrics, nn, training

CATEGORICAL = (0,)
"""The factor whose order means nothing: the shape."""
DISCRIMINATOR = (256, 256, 256)
"""Hidden layers of the FactorVAE's discriminator."""

PyTree = Any


# Configuration


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Networks and latents."""

    hidden: tuple[int, ...] = (256, 256)
    """Hidden layers of the encoder, and in reverse of the decoder, with ReLU."""
    latents: int = 10
    """Number of latents, which are normal."""
    groups: int = 1
    """Number of groups of equal size that they are in, for hfvae."""

    def __post_init__(self) -> None:
        _cli.check(
            min(self.groups, self.latents) >= 1 and self.latents % self.groups == 0,
            "model.latents must be at least 1 and divisible by model.groups, got "
            f"{self.latents} and {self.groups}",
        )


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """The objective."""

    name: Literal["elbo", "capacity", "beta-tcvae", "factor-vae", "dip-vae-1", "dip-vae-2", "hfvae"]
    """The negative ELBO with a weight of the KL; with ``|KL - C|`` for its KL; with a weight of its
    total correlation; with a discriminator's estimate of that added; with a penalty on covariances
    of the means (1) or of the samples (2); or with weights of the total correlations of groups."""
    weight: float = 1.0
    """Of the KL (elbo), of ``|KL - C|`` (capacity), of the total correlation (beta-tcvae,
    factor-vae; hfvae: between groups), of covariances off the diagonal (dip-vae; tenfold on the
    diagonal for 1, as much for 2)."""
    information: float = 1.0
    """Weight of the mutual information of images and latents, for beta-tcvae and hfvae."""
    within: float = 1.0
    """Weight of the total correlation within groups, for hfvae."""
    capacity: float = 0.0
    """C at last, in nats, for capacity."""
    rising: float = 0.5
    """Share of the training over which C rises linearly from 0."""

    def __post_init__(self) -> None:
        _cli.check_least(self, "objective.", weight=0, information=0, within=0, capacity=0)
        _cli.check(0 <= self.rising <= 1, f"objective.rising must be in [0, 1], got {self.rising}")


@dataclasses.dataclass(frozen=True)
class Config:
    """A run."""

    data: data.DataConfig
    model: ModelConfig
    objective: ObjectiveConfig
    train: training.TrainConfig
    examples: int = 50_000
    """Training images, a random sample of all combinations of the factors."""
    test_examples: int = 5_000
    """Images that scores are measured on, and a fifth as many to validate on."""

    def __post_init__(self) -> None:
        _cli.check(
            self.examples >= 1 and self.test_examples >= 5,
            "examples must be at least 1 and test_examples at least 5, got "
            f"{self.examples} and {self.test_examples}",
        )


# Presets


def preset(yields: str, objective: ObjectiveConfig, groups: int = 1) -> _cli.Preset:
    """Makes a preset from its objective, and the groups that it needs."""
    train = training.TrainConfig(
        steps=3000,
        batch_size=256,
        learning_rate=2e-3,
        schedule="cosine",
        ema_decay=0.999,
        scan_steps=200,
        log_every=200,
        checkpoint_every=1000,
    )
    source = data.DataConfig("embedded:sprites", image_size=16)
    return _cli.Preset(
        Config(source, ModelConfig(groups=groups), objective, train),
        yields=f"{yields}, of 50,000 sprites of 16x16 pixels.",
        cost="2 minutes on one CPU core",
    )


PRESETS = {
    "vae": preset("A variational auto-encoder", ObjectiveConfig("elbo")),
    "beta": preset("The same with four times the KL", ObjectiveConfig("elbo", 4.0)),
    "capacity": preset(
        "A KL held at a capacity that rises", ObjectiveConfig("capacity", 30.0, capacity=5.0)
    ),
    "beta-tcvae": preset(
        "Four times the total correlation, half the mutual information",
        ObjectiveConfig("beta-tcvae", 4.0, information=0.5),
    ),
    "factor-vae": preset(
        "A discriminator's estimate of the total correlation added",
        ObjectiveConfig("factor-vae", 10.0),
    ),
    "dip-vae-1": preset("Covariances of the means penalised", ObjectiveConfig("dip-vae-1", 1.0)),
    "dip-vae-2": preset("Covariances of samples penalised", ObjectiveConfig("dip-vae-2", 1.0)),
    "hfvae": preset(
        "Weighted total correlations between five pairs of latents and within them",
        ObjectiveConfig("hfvae", 4.0, information=0.5, within=4.0),
        groups=5,
    ),
}


# Model


def build(config: Config, shape: tuple[int, int, int]) -> vf.models.VAE:
    """Builds the model for images of a shape, which it binarises."""
    model = config.model
    posterior = vf.encoders.DiagonalGaussianPosterior(model.latents)
    if model.groups > 1:
        size = model.latents // model.groups
        groups = {f"g{i}": vf.encoders.DiagonalGaussianPosterior(size) for i in range(model.groups)}
        posterior = vf.encoders.GroupedPosterior(groups)
    encoder = vf.encoders.DenseEncoder(model.hidden, activation=nn.relu)
    decoder = vf.decoders.DenseDecoder(model.hidden[::-1], activation=nn.relu)
    return vf.models.VAE(
        vf.encoders.Encoder(encoder, posterior),
        vf.decoders.Decoder(decoder, vf.decoders.BernoulliLikelihood(), shape),
        vf.models.Binarizer(),
    )


class Players(NamedTuple):
    """Arguments of `vaeflow.training.train` that train a VAE by an objective.

    Attributes:
      model: The VAE, or that and its discriminator.
      losses: The loss, or one for each player.
      optimizers: The optimiser, or one for each player.
      weights: Weights of the loss, or those of each player.
      prefix: Prefix of the names of the VAE's metrics.
    """

    model: Any
    losses: Any
    optimizers: Any
    weights: dict[str, Any]
    prefix: str = ""

    def vae_variables(self, variables: PyTree) -> PyTree:
        """Returns the variables of the VAE alone."""
        if not self.prefix:
            return variables
        return vf.models.submodel(self.model, variables, "model")[1]


def make_players(
    objective: ObjectiveConfig, vae: vf.models.VAE, train: training.TrainConfig
) -> Players:
    """Makes the players of an objective; FactorVAE's discriminator is a second one."""
    loss, weights = make_loss(objective, train.steps, train.batch_size)
    optimizer = training.make_optimizer(train)
    if objective.name != "factor-vae":
        return Players(vae, loss, optimizer, weights)
    # The decays are the paper's.
    adversary = optax.adam(training.make_schedule(train), b1=0.5, b2=0.9)
    return Players(
        vf.models.FactorVAE(vae, nn.LatentDiscriminator(DISCRIMINATOR)),
        {"model": loss, "discriminator": losses.factor_vae_discriminator},
        {"model": optimizer, "discriminator": adversary},
        {"model": weights},
        prefix="model/",
    )


def make_loss(
    objective: ObjectiveConfig, steps: int, batch_size: int
) -> tuple[Any, dict[str, Any]]:
    """Returns the loss of the VAE, and its weights."""
    name, weight = objective.name, objective.weight
    if name == "elbo":
        return losses.elbo, {"beta": weight}
    if name == "capacity":
        capacity = losses.linear_schedule(objective.rising * steps, end=objective.capacity)
        return losses.elbo, {"beta": weight, "capacity": capacity}
    if name == "factor-vae":
        return losses.factor_vae, {"gamma": weight}
    if name in ("beta-tcvae", "hfvae"):
        # The aggregate posterior is that of the batch, which is known, not that of the data: a
        # batch underestimates the density of the latter, the more so the more informative the
        # latents; its total correlation is then negative, and a weight on it rewards that.
        loss = losses.beta_tcvae if name == "beta-tcvae" else losses.hfvae
        weights = {"alpha": objective.information, "beta": weight}
        if name == "hfvae":
            weights["gamma"] = objective.within
        return functools.partial(loss, dataset_size=batch_size), weights
    of_samples = name == "dip-vae-2"
    loss = functools.partial(losses.dip_vae, of_samples=of_samples)
    return loss, {"off_diagonal": weight, "diagonal": weight if of_samples else 10 * weight}


# Run


def open_subset(config: Config) -> data.Dataset:
    """Opens the data, with so many images of each split as the configuration has, rendered once.

    Raises:
      ValueError: If the factors of the data aren't known.
    """
    dataset = data.open_dataset(config.data)
    if not isinstance(dataset.truth, data.Sprites):
        raise ValueError(f"data.source must be embedded:sprites, got {config.data.source}")
    counts = {
        "train": config.examples,
        "validation": config.test_examples // 5,
        "test": config.test_examples,
    }
    splits = {split: _first(getattr(dataset, split), count) for split, count in counts.items()}
    return dataclasses.replace(dataset, **splits)


def _first(source: data.Source, count: int) -> data.Source:
    """The first examples of a split, whose order is random, in memory."""
    rows = source.rows[:count]
    examples = source.read(rows)
    place = np.zeros(rows.max() + 1, np.int32)
    place[rows] = np.arange(len(rows))
    return data.Source(
        lambda wanted: {name: values[place[wanted]] for name, values in examples.items()},
        rows,
        source.offset,
    )


def run(config: Config, directory: training.RunDirectory) -> _cli.Result:
    """Trains, measures and plots."""
    dataset = open_subset(config)
    print(dataset)
    vae, train = build(config, dataset.shape), config.train
    players = make_players(config.objective, vae, train)
    first = data.stack(dataset.train, 500)["image"]

    def evaluate(step: int, variables: PyTree) -> dict[str, float]:
        params = players.vae_variables(variables)
        return {VALIDATION: _evaluation.mean_elbo(vae, params, dataset.validation)}

    def figures(step: int, variables: PyTree) -> None:
        samples = _figures.samples(vae, players.vae_variables(variables), 2)
        _figures.save(directory, f"samples_step_{step:07d}", samples)

    fitted = training.train(
        players.model,
        players.losses,
        training.Batches(dataset.train, train.batch_size, train.seed, config.data.flip),
        train,
        directory,
        optimizers=players.optimizers,
        initialize=lambda: jax.jit(players.model.init)(jax.random.key(train.seed), first),
        weights=players.weights,
        figures=figures,
        evaluate=evaluate,
    )
    variables = players.vae_variables(fitted.variables)
    directory.write_model(variables, dataset.shape)

    elbo_terms = functools.partial(_evaluation.elbo_terms, vae)
    elbo = _evaluation.negative_elbo(measure(elbo_terms, variables, dataset.test, "ELBO"))
    mean = functools.partial(_evaluation.posterior_mean, vae)
    means = measure(mean, variables, dataset.test, "posteriors")
    factors = dataset.truth.codes(dataset.test.rows)
    counts, remark = _evaluation.collapse(means)
    results = {
        **elbo,
        "bits_per_dim": metrics.bits_per_dim(elbo["negative_elbo"], np.prod(dataset.shape)),
        **counts,
        **metrics.disentanglement_scores(means, factors, categorical=CATEGORICAL),
        **fitted.metrics,
    }
    if training.is_first():
        plots = _figures.latent_figures(vae, variables, dataset, directory)
        _figures.save_all(directory, plots)
        curve = _figures.elbo_curve(directory, f"{players.prefix}negative_elbo")
        _figures.save(directory, "training_curve", curve)
    return _cli.Result(fitted.step, results, remark)


if __name__ == "__main__":
    _cli.main("beta_vae_sprites", PRESETS, run)
