"""Trains a variational auto-encoder of images, measures and draws it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

import vaeflow as vf
from experiments import auto_encoder_runs, common, latent_models
from experiments.latent_evaluation import VALIDATION, Evaluation, condition_of
from experiments.latent_figures import Drawing
from experiments.latent_objectives import ObjectiveConfig, make_loss
from vaeflow import data, metrics, training


@dataclasses.dataclass(frozen=True)
class Config:
    """A run."""

    data: data.DataConfig
    model: latent_models.ModelConfig
    objective: ObjectiveConfig
    train: training.TrainConfig
    importance_samples: int = 5000
    """Samples of each test image behind the log-likelihood, in hundreds."""

    def __post_init__(self) -> None:
        """Refuses values out of range.

        Raises:
          ValueError: Naming the field, the value given and what is allowed.
        """
        if self.importance_samples < 100 or self.importance_samples % 100:
            raise ValueError(
                f"importance_samples must be a multiple of 100, got {self.importance_samples}"
            )


def build(
    config: Config, shape: tuple[int, int, int]
) -> vf.models.VAE | vf.models.HierarchicalVAE | vf.models.AutoEncoder:
    """Builds the model for images of a shape."""
    return latent_models.build(config.model, shape)


def functions(config: Config, shape: tuple[int, int, int]) -> dict[str, vf.sharing.FunctionSpec]:
    """Lists what `python -m experiments.export` writes of the model."""
    return vf.sharing.export_functions(build(config, shape))


def run(config: Config, directory: training.RunDirectory) -> common.Result:
    """Trains, measures and draws."""
    if config.model.posterior == "none":
        return auto_encoder_runs.run(config, directory)
    dataset = data.open_dataset(config.data)
    print(dataset)
    if config.model.classes not in (None, dataset.num_classes):
        raise ValueError(
            f"model.classes must be that of the data, {dataset.num_classes}, got {config.model.classes}"
        )
    model = build(config, dataset.shape)
    train, condition = config.train, condition_of(model)
    loss, weights = make_loss(config.objective, train.steps, condition)
    first = data.stack(dataset.train, max(500, config.model.components))
    labels = None if condition is None else first[condition]
    evaluation = Evaluation(model, config.importance_samples)
    drawing = Drawing(model, dataset, directory, evaluation)

    def evaluate(step: int, variables) -> dict[str, float]:
        return {VALIDATION: float(evaluation("bound", variables, dataset.validation).sum(0).mean())}

    fitted = training.fit(
        model,
        loss,
        training.Batches(dataset.train, train.batch_size, train.seed, config.data.flip),
        train,
        directory,
        initialize=lambda: jax.jit(model.init)(jax.random.key(train.seed), first["image"], labels),
        weights=weights,
        figures=drawing.progress,
        evaluate=evaluate,
        best=VALIDATION if train.patience else None,
    )
    variables = fitted.variables
    directory.write_model(variables, dataset.shape)
    reconstruction, *groups = evaluation("bound", variables, dataset.test)
    kl = sum(groups)
    log_likelihoods = evaluation("log_likelihood", variables, dataset.test)[0]
    latents = evaluation("encode", variables, dataset.test).T
    active = metrics.active_units(latents)
    found = {
        "negative_log_likelihood": -np.mean(log_likelihoods),
        "negative_elbo": np.mean(reconstruction + kl),
        "reconstruction": np.mean(reconstruction),
        "kl": np.mean(kl),
        "bits_per_dim": metrics.bits_per_dim(-np.mean(log_likelihoods), np.prod(dataset.shape)),
        "active_units": int(active.sum()),
        "collapsed_units": int((~active).sum()),
        **of_levels(model, groups, active),
        **fitted.metrics,
    }
    if config.model.prior == "mixture" and dataset.num_classes:
        labels = data.stack(dataset.test)["label"]
        clusters, _ = evaluation("component", variables, dataset.test)
        found["cluster_accuracy"] = metrics.cluster_accuracy(clusters.astype(int), labels)
    if training.is_first():
        drawing.final(variables)
    collapsed = f"{(~active).sum()} of {active.size} latents have collapsed to the prior"
    return common.Result(fitted.step, found, "" if active.all() else collapsed)


def of_levels(model, kl: Sequence[np.ndarray], active: np.ndarray) -> dict[str, float]:
    """KL and active units of each level of a hierarchy, from the one beside the image up."""
    if not isinstance(model, vf.models.HierarchicalVAE):
        return {}
    units = model.split(active)
    found = {f"kl/{name}": np.mean(nats) for name, nats in zip(units, kl, strict=True)}
    return found | {f"active_units/{name}": int(part.sum()) for name, part in units.items()}
