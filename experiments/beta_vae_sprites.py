"""Disentangling objectives on sprites, whose five factors are known, under one protocol.

Trains one objective, measures how its latents relate to shape, scale, rotation, x and y, and draws
what each latent does. `python -m benchmarks.sprites` runs all of them over several seeds.
"""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

import vaeflow as vf
from experiments import common
from experiments.disentangling_objectives import ObjectiveConfig, Training
from experiments.latent_evaluation import VALIDATION, Evaluation
from experiments.latent_figures import Drawing
from vaeflow import data, metrics, nn, training

CATEGORICAL = (0,)
"""The factor whose order means nothing: the shape."""


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
        """Refuses values out of range.

        Raises:
          ValueError: Naming the field, the value given and what is allowed.
        """
        if self.groups < 1 or self.latents < 1 or self.latents % self.groups:
            raise ValueError(
                "model.latents must be at least 1 and divisible by model.groups, got "
                f"{self.latents} and {self.groups}"
            )


@dataclasses.dataclass(frozen=True)
class Config:
    """A run."""

    data: data.DataConfig
    model: ModelConfig
    objective: ObjectiveConfig
    train: training.TrainConfig
    examples: int = 50_000
    """Training images, drawn once from all combinations of the factors."""
    test_examples: int = 5_000
    """Images that scores are measured on, and a fifth as many to validate on."""

    def __post_init__(self) -> None:
        """Refuses values out of range.

        Raises:
          ValueError: Naming the field, the value given and what is allowed.
        """
        if self.examples < 1 or self.test_examples < 5:
            raise ValueError(
                "examples must be at least 1 and test_examples at least 5, got "
                f"{self.examples} and {self.test_examples}"
            )


def build(config: Config, shape: tuple[int, int, int]) -> vf.models.VAE:
    """Builds the model for images of a shape, which it binarises."""
    model = config.model
    posterior = vf.encoders.DiagonalGaussianPosterior(model.latents)
    if model.groups > 1:
        size = model.latents // model.groups
        posterior = vf.encoders.GroupedPosterior(
            {f"g{i}": vf.encoders.DiagonalGaussianPosterior(size) for i in range(model.groups)}
        )
    return vf.models.VAE(
        vf.encoders.Encoder(vf.encoders.DenseEncoder(model.hidden, activation=nn.relu), posterior),
        vf.decoders.Decoder(
            vf.decoders.DenseDecoder(model.hidden[::-1], activation=nn.relu),
            vf.decoders.BernoulliLikelihood(),
            shape,
        ),
        vf.models.Binarizer(),
    )


def functions(config: Config, shape: tuple[int, int, int]) -> dict[str, vf.sharing.FunctionSpec]:
    """Lists what `python -m experiments.export` writes of the model."""
    return vf.sharing.export_functions(build(config, shape))


def open_subset(config: Config) -> data.Dataset:
    """The data, as many images of each split as are asked for, rendered once.

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
    kept = {split: _kept(getattr(dataset, split), count) for split, count in counts.items()}
    return dataclasses.replace(dataset, **kept)


def _kept(source: data.Source, count: int) -> data.Source:
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


def run(config: Config, directory: training.RunDirectory) -> common.Result:
    """Trains, measures and draws."""
    dataset = open_subset(config)
    print(dataset)
    vae, train = build(config, dataset.shape), config.train
    parts = Training(config.objective, vae, train)
    first = data.stack(dataset.train, 500)["image"]
    evaluation = Evaluation(vae, samples=100)
    drawing = Drawing(vae, dataset, directory, evaluation, f"{parts.prefix}negative_elbo")

    def evaluate(step: int, variables) -> dict[str, float]:
        found = evaluation("bound", parts.variables_of_vae(variables), dataset.validation)
        return {VALIDATION: float(found.sum(0).mean())}

    fitted = training.fit(
        parts.model,
        parts.losses,
        training.Batches(dataset.train, train.batch_size, train.seed, config.data.flip),
        train,
        directory,
        optimizers=parts.optimizers,
        initialize=lambda: jax.jit(parts.model.init)(jax.random.key(train.seed), first),
        weights=parts.weights,
        figures=lambda step, variables: drawing.progress(step, parts.variables_of_vae(variables)),
        evaluate=evaluate,
    )
    variables = parts.variables_of_vae(fitted.variables)
    directory.write_model(variables, dataset.shape)
    reconstruction, *groups = evaluation("bound", variables, dataset.test)
    latents = evaluation("encode", variables, dataset.test).T
    codes = dataset.truth.codes(dataset.test.rows)
    active = metrics.active_units(latents)
    bound = np.mean(reconstruction + sum(groups))
    found = {
        "negative_elbo": bound,
        "reconstruction": np.mean(reconstruction),
        "kl": np.mean(sum(groups)),
        "bits_per_dim": metrics.bits_per_dim(bound, np.prod(dataset.shape)),
        "active_units": int(active.sum()),
        "collapsed_units": int((~active).sum()),
        **metrics.disentanglement_scores(latents, codes, categorical=CATEGORICAL),
        **fitted.metrics,
    }
    if training.is_first():
        drawing.final(variables)
    collapsed = f"{(~active).sum()} of {active.size} latents have collapsed to the prior"
    return common.Result(fitted.step, found, "" if active.all() else collapsed)


def preset(yields: str, objective: ObjectiveConfig, groups: int = 1) -> common.Preset:
    """A preset that differs from others in its objective, and the groups that it needs."""
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
    return common.Preset(
        Config(
            data.DataConfig("embedded:sprites", image_size=16),
            ModelConfig(groups=groups),
            objective,
            train,
        ),
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
        "The same, for total correlations between five pairs of latents and within them",
        ObjectiveConfig("hfvae", 4.0, information=0.5, within=4.0),
        groups=5,
    ),
}

if __name__ == "__main__":
    common.main("beta_vae_sprites", PRESETS, run)
