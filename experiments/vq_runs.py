"""Trains an auto-encoder with codes, finds the codes, trains priors over them, and samples.

Four stages, each kept as soon as it is done: a run that was stopped goes on from where it was.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vaeflow as vf
from experiments import common, image_classifier, vq_models
from experiments.image_scores import open_scorer
from experiments.latent_evaluation import filled_batches, keys_of
from experiments.vq_codes import Codes, find_codes, load_codes
from experiments.vq_figures import Drawing
from vaeflow import data, estimators, losses, metrics, training
from vaeflow.losses.vq_vae import code_evidence
from vaeflow.training.config import check_batch_size

STAGES = ("auto-encoder", "codes", "priors", "samples")
RECONSTRUCTION = "validation_reconstruction"
CODE_NATS = "validation_negative_log_likelihood"

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Config:
    """A run."""

    data: data.DataConfig
    model: vq_models.ModelConfig
    prior: vq_models.PriorConfig
    train: training.TrainConfig
    """Of the auto-encoder."""
    prior_train: training.TrainConfig
    """Of the prior of each level."""
    classifier_train: training.TrainConfig = image_classifier.PRESETS["digits"].config.train
    """Of the classifier that samples are scored by, where the data have labels."""


def build(config: Config, shape: tuple[int, int, int]) -> vf.models.CodeModel:
    """Builds the model for images of a shape."""
    return vq_models.build(config.model, config.prior, shape)


def functions(config: Config, shape: tuple[int, int, int]) -> dict[str, vf.sharing.FunctionSpec]:
    """Lists what `python -m experiments.export` writes of the model."""
    names = vq_models.level_names(config.model.levels)
    return vf.sharing.export_functions(build(config, shape), level_names=names)


def run(config: Config, directory: training.RunDirectory, stage: str) -> common.Result | None:
    """Goes through all stages, or through one of them."""
    dataset = data.open_dataset(config.data)
    print(dataset)
    if config.prior.classes not in (None, dataset.num_classes):
        raise ValueError(
            f"prior.classes must be that of the data, {dataset.num_classes}, got {config.prior.classes}"
        )
    for name in ("train", "prior_train", "classifier_train"):  # before hours are lost
        check_batch_size(getattr(config, name), name)
    stages = Stages(config, directory, dataset)
    last = STAGES[-1] if stage == common.ALL else stage
    for name in STAGES[: STAGES.index(last) + 1]:
        result = stages(name, wanted=stage in (common.ALL, name))
    return result


class Stages:
    """The stages of a run, to be called in their order: each is done now, or was done before."""

    def __init__(self, config: Config, directory: training.RunDirectory, dataset: data.Dataset):
        self.config, self.directory, self.dataset = config, directory, dataset
        self.names = vq_models.level_names(config.model.levels)
        self.model = build(config, dataset.shape)
        self.drawing = Drawing(self.model, dataset, directory, self.names)
        self.parts: dict[str, PyTree] = {}
        self.steps: dict[str, int] = {}
        self.codes: Codes | None = None

    def __call__(self, name: str, wanted: bool) -> common.Result | None:
        """Does a stage; if it isn't wanted, it must have been done before.

        Raises:
          ValueError: If it wasn't.
        """
        doing = {
            "auto-encoder": self._auto_encoder,
            "codes": self._codes,
            "priors": self._priors,
            "samples": self._samples,
        }
        return doing[name](wanted)

    def _auto_encoder(self, wanted: bool) -> None:
        config, train = self.config, self.config.train
        model = self.model.auto_encoder
        path = self.directory.path / "auto_encoder.safetensors"
        if _done(path, wanted, "auto-encoder"):
            self._take("auto_encoder", path)
            return
        first = data.stack(self.dataset.train, 500)["image"]

        @jax.jit
        def measure(variables: PyTree, batch: PyTree) -> jax.Array:
            return code_evidence(model, variables, batch, keys_of(batch)).log_likelihood

        def evaluate(step: int, variables: PyTree) -> dict[str, float]:
            return {RECONSTRUCTION: -_mean(measure, variables, self.dataset.validation)}

        fitted = training.fit(
            model,
            functools.partial(losses.vq_vae, commitment=config.model.commitment),
            training.Batches(self.dataset.train, train.batch_size, train.seed, config.data.flip),
            train,
            self.directory,
            initialize=lambda: jax.jit(model.init)(jax.random.key(train.seed), first),
            figures=self.drawing.progress,
            evaluate=evaluate,
            best=RECONSTRUCTION,
        )
        self._keep("auto_encoder", path, fitted)

    def _take(self, part: str, path: Any) -> None:
        """Reads a part of the model that was trained before."""
        described, self.parts[part] = vf.sharing.load(path)
        self.steps[part] = described["step"]

    def _keep(self, part: str, path: Any, fitted: training.FitResult) -> None:
        """Writes a part of the model, with the step that it is from."""
        self.parts[part], self.steps[part] = fitted.variables, fitted.step
        if training.is_first():
            described = {"step": fitted.step, "config": self.directory.config}
            vf.sharing.save(path, described, fitted.variables)

    def _codes(self, wanted: bool) -> None:
        path = self.directory.path / "codes.npz"
        if _done(path, wanted, "codes"):
            self.codes = load_codes(path, self.names)
            return
        model, variables = self.model.auto_encoder, self.parts["auto_encoder"]
        flip = self.config.data.flip
        self.codes = find_codes(model, variables, self.dataset, self.names, flip)
        if training.is_first():
            self.codes.save(path)

    def _priors(self, wanted: bool) -> None:
        for level, name in enumerate(self.names):
            folder = self.directory.path / f"prior_{name}"
            path = folder / "prior.safetensors"
            if _done(path, wanted, "priors"):
                self._take(f"priors_{level}", path)
                continue
            folder.mkdir(parents=True, exist_ok=True)
            common.announce(f"prior of {name}")
            fitted = self._prior(level, dataclasses.replace(self.directory, path=folder))
            self._keep(f"priors_{level}", path, fitted)

    def _prior(self, level: int, directory: training.RunDirectory) -> training.FitResult:
        """Trains the prior of a level."""
        prior, name, train = self.model.priors[level], self.names[level], self.config.prior_train
        condition = [] if prior.num_classes is None else ["label"]
        condition += [] if prior.above is None else [self.names[level - 1]]
        condition = tuple(condition) if len(condition) > 1 else next(iter(condition), None)
        options = {"data": name, "condition": condition}
        source, validation = self.codes.source("train"), self.codes.source("validation")
        first = data.stack(source, 5000)
        context = estimators.context_of(first, condition)

        @jax.jit
        def measure(variables: PyTree, batch: PyTree) -> jax.Array:
            given = estimators.context_of(batch, condition)
            return prior.apply(variables, batch[name], None, given, method="log_prob")

        def evaluate(step: int, variables: PyTree) -> dict[str, float]:
            return {CODE_NATS: -_mean(measure, variables, validation)}

        return training.fit(
            prior,
            functools.partial(losses.negative_log_likelihood, **options),
            training.Batches(source, train.batch_size, train.seed),
            train,
            directory,
            initialize=lambda: jax.jit(prior.init)(
                jax.random.key(train.seed), first[name], context
            ),
            evaluate=evaluate,
            best=CODE_NATS,
        )

    def _samples(self, wanted: bool) -> common.Result:
        """Measures the whole model, and draws it."""
        del wanted
        variables = vf.models.merge_submodels(self.parts)
        self.directory.write_model(variables, self.dataset.shape)

        @jax.jit
        def measure(variables: PyTree, batch: PyTree) -> jax.Array:
            found = losses.code_bound(self.model, variables, batch, keys_of(batch))
            return -jnp.stack([found.log_likelihood, *found.log_prior], axis=-1)

        reconstruction, *nats = _mean(measure, variables, self.dataset.test)
        dimensions = int(np.prod(self.dataset.shape))
        counts = self.codes.counts(self.model.priors[0].network.num_codes)
        found = {
            "bits_per_dim": metrics.bits_per_dim(reconstruction + sum(nats), dimensions),
            "reconstruction_per_dim": metrics.bits_per_dim(reconstruction, dimensions),
            "reconstruction": reconstruction,
        }
        for level, (name, of_level) in enumerate(zip(self.names, nats, strict=True)):
            found[f"code_nats/{name}"] = of_level
            found[f"prior_step/{name}"] = self.steps[f"priors_{level}"]
            found[f"live_codes/{name}"] = metrics.live_codes(counts[name])
            found[f"code_perplexity/{name}"] = metrics.code_perplexity(counts[name])
        if self.dataset.num_classes is not None:
            own = {"train": self.config.classifier_train}
            scorer = open_scorer(self.dataset, self.config.data, self.directory, **own)
            found |= scorer.report({"samples": self.drawing.many(variables, scorer.count)})
        if training.is_first():
            self.drawing.final(variables, counts)
        remark = "bits_per_dim is a bound, by likelihood and prior of one code a latent"
        return common.Result(self.steps["auto_encoder"], found, remark)


def _done(path: Any, wanted: bool, stage: str) -> bool:
    """Whether a stage has left its file; one that hasn't must be wanted."""
    if not (path.exists() or wanted):
        raise ValueError(f"stage {stage} isn't done yet: it comes first")
    return path.exists()


def _mean(
    measure: Callable[[PyTree, PyTree], jax.Array], variables: PyTree, source: data.Source
) -> np.ndarray:
    """Averages what is measured of each example, ``[batch, ...]``, over a split."""
    found = [
        np.asarray(measure(variables, batch), np.float64)[:count]
        for batch, count in filled_batches(source)
    ]
    return np.mean(np.concatenate(found), axis=0)
