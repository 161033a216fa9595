"""Variational auto-encoders of digits: posteriors, priors and bounds under one protocol.

Trains on digits binarised anew at every step, reports the log-likelihood of the test digits by
importance sampling, and how many latents are used; draws samples, reconstructions and
interpolations.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

import vaeflow as vf
from experiments import common, latent_models
from vaeflow import data, losses, metrics, plotting, training

VALIDATION = "validation_negative_elbo"
BATCH = 100
"""Images that are measured at once."""

PyTree = Any


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised."""

    bound: Literal["elbo", "importance-weighted", "sticking-the-landing", "doubly-reparameterized"]
    """The negative ELBO; the importance-weighted bound, with its plain gradient; or a bound with a
    gradient of less variance."""
    samples: int = 1
    """Samples k of each image; the ELBO takes one."""
    beta: float = 1.0
    """Weight of the KL, for the ELBO alone."""
    warmup: float = 0.0
    """Share of the training over which that weight rises from 0."""

    def __post_init__(self) -> None:
        """Refuses values out of range.

        Raises:
          ValueError: Naming the field, the value given and what is allowed.
        """
        if self.samples < 1 or (self.bound == "elbo" and self.samples != 1):
            raise ValueError(
                f"objective.samples must be at least 1, and 1 for the ELBO, got {self.samples}"
            )
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"objective.warmup must be in [0, 1], got {self.warmup}")
        if self.bound != "elbo" and (self.beta, self.warmup) != (1.0, 0.0):
            raise ValueError(
                "objective.beta and objective.warmup are for the ELBO, got "
                f"{self.beta} and {self.warmup} with {self.bound}"
            )
        if self.beta < 0:
            raise ValueError(f"objective.beta must be at least 0, got {self.beta}")


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


def build(config: Config, shape: tuple[int, int, int]) -> vf.models.VAE:
    """Builds the model for images of a shape."""
    return latent_models.build(config.model, shape)


def functions(config: Config, shape: tuple[int, int, int]) -> dict[str, vf.sharing.Function]:
    """Lists what `python -m vaeflow.export` writes of the model."""
    return vf.sharing.latent_functions(build(config, shape))


def make_loss(config: Config) -> tuple[Any, dict[str, Any]]:
    """The loss, and the schedules of its weights."""
    objective = config.objective
    if objective.bound == "elbo":
        rise = max(objective.warmup * config.train.steps, 1e-9)
        beta = objective.beta
        return losses.elbo, {"beta": lambda step: beta * jnp.minimum(1.0, step / rise)}
    bounds = {
        "importance-weighted": losses.importance_weighted,
        "sticking-the-landing": losses.sticking_the_landing,
        "doubly-reparameterized": losses.doubly_reparameterized,
    }
    return functools.partial(bounds[objective.bound], samples=objective.samples), {}


class Evaluation:
    """What is measured of the model, with noise that depends on the example alone."""

    def __init__(self, model: vf.models.VAE, samples: int):
        @jax.jit
        def bound(variables: PyTree, batch: PyTree) -> jax.Array:
            found = losses.evidence(model, variables, batch, keys_of(batch))
            kl = sum(found.latents.kl_by_group().values())
            return jnp.stack([-found.log_likelihood[0], kl])

        @jax.jit
        def log_likelihood(variables: PyTree, batch: PyTree) -> jax.Array:
            return metrics.importance_weighted_log_likelihood(
                model, variables, batch["image"], keys_of(batch), samples=samples, chunk=100
            )[None]

        @jax.jit
        def encode(variables: PyTree, batch: PyTree) -> jax.Array:
            return model.apply(variables, batch["image"], keys_of(batch), method="encode").T

        self._functions = {"bound": bound, "log_likelihood": log_likelihood, "encode": encode}

    def __call__(self, name: str, variables: PyTree, source: data.Source) -> np.ndarray:
        """Values of each example of a split, ``[value, example]``."""
        found = []
        for batch in data.epoch_batches(source, BATCH):
            count = len(batch["index"])
            rows = np.arange(BATCH) % count  # filled up, for one shape is compiled
            filled = {key: batch[key][rows] for key in ("image", "index")}
            found.append(np.asarray(self._functions[name](variables, filled))[:, :count])
        return np.concatenate(found, axis=1, dtype=np.float64)


def keys_of(batch: PyTree) -> jax.Array:
    """Keys that depend on the numbers of the examples alone."""
    return jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(0)))(batch["index"])


class Drawing:
    """The figures of a run."""

    def __init__(self, model, dataset: data.Dataset, directory: training.RunDirectory):
        self.dataset, self.directory = dataset, directory
        self.sample = jax.jit(functools.partial(model.apply, method="sample"), static_argnums=2)
        self.decode = jax.jit(functools.partial(model.apply, method="decode"))
        self.encode = jax.jit(functools.partial(model.apply, method="encode"))

    def save(self, name: str, figure) -> None:
        plotting.save_figure(self.directory.figures / f"{name}.png", figure)

    def samples(self, variables) -> np.ndarray:
        return np.asarray(self.sample(variables, jax.random.key(1), 64))

    def progress(self, step: int, variables) -> None:
        """Samples during training, from the same noise each time."""
        self.save(f"samples_step_{step:07d}", plotting.image_grid(self.samples(variables)[:16], 8))

    def final(self, variables) -> None:
        """All figures of the trained model."""
        self.save("samples", plotting.image_grid(self.samples(variables), 8))
        real = data.stack(self.dataset.test, 8)["image"]
        z = self.encode(variables, real, jax.random.key(2))
        self.save(
            "reconstructions", plotting.reconstructions(real, np.asarray(self.decode(variables, z)))
        )
        weights = jnp.linspace(0, 1, 8)[:, None]
        paths = [
            np.asarray(self.decode(variables, (1 - weights) * z[i] + weights * z[i + 1]))
            for i in range(0, len(z) - 1, 2)
        ]
        self.save("interpolations", plotting.interpolations(np.stack(paths)))
        records = self.directory.read_metrics()
        curves = {"training batches": "negative_elbo", "validation": VALIDATION}
        self.save(
            "training_curve", plotting.training_curve(records, curves, {}, "negative ELBO, nats")
        )


def run(config: Config, directory: training.RunDirectory) -> common.Result:
    """Trains, measures and draws."""
    dataset = data.open_dataset(config.data)
    print(dataset)
    model = build(config, dataset.shape)
    train = config.train
    loss, weights = make_loss(config)
    first = data.stack(dataset.train, max(500, config.model.components))["image"]
    evaluation = Evaluation(model, config.importance_samples)
    drawing = Drawing(model, dataset, directory)

    def evaluate(step: int, variables) -> dict[str, float]:
        return {VALIDATION: float(evaluation("bound", variables, dataset.validation).sum(0).mean())}

    fitted = training.fit(
        model,
        loss,
        training.make_optimizer(train),
        training.Batches(dataset.train, train.batch_size, train.seed, config.data.flip),
        train,
        directory,
        initialize=lambda: jax.jit(model.init)(jax.random.key(train.seed), first),
        weights=weights,
        figures=drawing.progress,
        evaluate=evaluate,
        best=VALIDATION if train.patience else None,
    )
    variables = fitted.variables
    directory.write_model(variables, dataset.shape)
    reconstruction, kl = evaluation("bound", variables, dataset.test)
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
        **fitted.metrics,
    }
    if training.is_first():
        drawing.final(variables)
    collapsed = f"{(~active).sum()} of {active.size} latents have collapsed to the prior"
    return common.Result(fitted.step, found, "" if active.all() else collapsed)


def preset(
    yields: str,
    *,
    bound: str = "elbo",
    samples: int = 1,
    beta: float = 1.0,
    steps: int = 20_000,
    cost: str = "5 minutes on 2 CPU cores",
    **model: Any,
) -> common.Preset:
    """A preset that differs from others in its model and its bound."""
    train = training.TrainConfig(
        steps=steps,
        batch_size=100,
        learning_rate=1e-3,
        schedule="cosine",
        ema_decay=0.999,
        scan_steps=200,
        log_every=100,
        evaluate_every=2000,
        checkpoint_every=2000,
    )
    return common.Preset(
        Config(
            data.DataConfig("embedded:digits"),
            latent_models.ModelConfig(**model),
            ObjectiveConfig(bound, samples, beta),
            train,
        ),
        yields=f"{yields}. 5,000 digits are embedded; --data.source npz:PATH takes all of MNIST.",
        cost=cost,
    )


PRESETS = {
    "vae": preset("A variational auto-encoder with a diagonal posterior"),
    "beta": preset("The same with four times the KL", beta=4.0),
    "iwae": preset(
        "The importance-weighted bound of 50 samples",
        bound="importance-weighted",
        samples=50,
        cost="an hour on 2 CPU cores",
    ),
    "dreg": preset(
        "The same with the doubly reparameterised gradient",
        bound="doubly-reparameterized",
        samples=50,
        cost="an hour on 2 CPU cores",
    ),
    "planar": preset("A posterior of 16 planar maps", posterior="planar"),
    "sylvester": preset(
        "A posterior of 4 Sylvester maps", posterior="sylvester", posterior_steps=4
    ),
    "iaf": preset(
        "A posterior of 4 inverse autoregressive maps", posterior="iaf", posterior_steps=4
    ),
    "vamp": preset("A prior made of the posteriors of 500 pseudo-inputs", prior="vamp"),
    "mixture": preset("A prior that is a mixture of Gaussians", prior="mixture", components=10),
    "flow-prior": preset("A prior that is a flow", prior="flow"),
}

if __name__ == "__main__":
    common.main("vae_mnist", PRESETS, run)
