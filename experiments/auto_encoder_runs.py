"""Trains an auto-encoder of images, then the same networks as a variational one, and compares."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import common, latent_models
from experiments.latent_evaluation import BATCH, Evaluation
from experiments.latent_figures import Drawing
from experiments.latent_objectives import make_loss
from vaeflow import data, losses, metrics, plotting, training

if TYPE_CHECKING:
    from experiments.latent_runs import Config

COLUMNS = 10
"""Samples of each kind that are drawn."""

PyTree = Any


def run(config: Config, directory: training.RunDirectory) -> common.Result:
    """Trains both for as many steps, the second in the folder `vae`; measures and draws."""
    dataset = data.open_dataset(config.data)
    print(dataset)
    model = latent_models.build(config.model, dataset.shape)
    first = data.stack(dataset.train, 500)["image"]

    @jax.jit
    def initialize(images: jax.Array) -> PyTree:
        key = jax.random.key(config.train.seed)
        return model.init(key, model.apply({}, images, key, method="observe").values)

    variables = _fit(
        config, directory, dataset, model, losses.reconstruction, {}, initialize, first
    )
    directory.write_model(variables, dataset.shape)

    other = dataclasses.replace(
        config, model=dataclasses.replace(config.model, posterior="diagonal")
    )
    folder = directory.path / "vae"
    folder.mkdir(parents=True, exist_ok=True)
    beside = dataclasses.replace(directory, path=folder, config=dataclasses.asdict(other))
    vae = latent_models.build(other.model, dataset.shape)
    loss, weights = make_loss(config.objective, config.train.steps)

    @jax.jit
    def initialize_vae(images: jax.Array) -> PyTree:
        return vae.init(jax.random.key(config.train.seed), images)

    vae_variables = _fit(other, beside, dataset, vae, loss, weights, initialize_vae, first)
    beside.write_model(vae_variables, dataset.shape)

    evaluation = Evaluation(vae, config.importance_samples)
    reconstruction, kl = evaluation("bound", vae_variables, dataset.test)
    nats = _reconstruction(model, variables, dataset.test)
    found = {
        "reconstruction": nats,
        "reconstruction_per_dim": metrics.bits_per_dim(nats, np.prod(dataset.shape)),
        "vae_reconstruction": np.mean(reconstruction),
        "vae_kl": np.mean(kl),
        "vae_negative_elbo": np.mean(reconstruction + kl),
    }
    if training.is_first():
        drawing = Drawing(model, dataset, directory, evaluation)
        drawing.reconstructions(variables)
        drawing.interpolations(variables)
        records = directory.read_metrics()
        drawing.save(
            "training_curve",
            plotting.training_curve(
                records, {"training batches": "reconstruction"}, {}, "reconstruction, nats"
            ),
        )
        codes = _codes(model, variables, dataset)
        drawing.save("samples", _samples(model, variables, codes, vae, vae_variables))
        drawn = evaluation("sample", vae_variables, dataset.test).T
        if config.model.latents > 1:
            drawing.save("latents", _latents(dataset, codes["test"], drawn))
    return common.Result(config.train.steps, found)


def _fit(
    config: Config, directory, dataset: data.Dataset, model, loss, weights, initialize, first
) -> PyTree:
    train = config.train
    return training.fit(
        model,
        loss,
        training.Batches(dataset.train, train.batch_size, train.seed, config.data.flip),
        dataclasses.replace(train, patience=0),
        directory,
        initialize=functools.partial(initialize, first),
        weights=weights,
    ).variables


def _reconstruction(model, variables: PyTree, source: data.Source) -> float:
    """The mean of -log p(x | f(x)) over a split, in nats."""
    measure = jax.jit(functools.partial(losses.reconstruction, model))
    total = 0.0
    for batch in data.epoch_batches(source, BATCH):
        images = {"image": batch["image"]}
        total += float(measure(variables, images, jax.random.key(0))[0]) * len(batch["index"])
    return total / len(source)


def _codes(model, variables: PyTree, dataset: data.Dataset) -> dict[str, np.ndarray]:
    """Latents of training and test images, at most 10,000 of each."""
    encode = jax.jit(functools.partial(model.apply, method="encode"))
    sources = {"train": dataset.train, "test": dataset.test}
    return {
        name: np.asarray(
            encode(variables, data.stack(source, 10_000)["image"], jax.random.key(0)), np.float64
        )
        for name, source in sources.items()
    }


def _samples(model, variables: PyTree, codes, vae, vae_variables: PyTree):
    """Draws of a standard normal and of one fitted to the codes, decoded; and those of the VAE."""
    noise = np.random.default_rng(0).normal(size=(COLUMNS, model.num_latents))
    covariance = np.atleast_2d(np.cov(codes["train"], rowvar=False))
    values, vectors = np.linalg.eigh(covariance)
    factor = vectors * np.sqrt(np.maximum(values, 0))
    fitted = codes["train"].mean(axis=0) + noise @ factor.T
    rows = {
        "auto-encoder, z from N(0, I)": (model, variables, noise),
        "auto-encoder, z from a normal\nfitted to its codes": (model, variables, fitted),
        "VAE, z from N(0, I)": (vae, vae_variables, noise),
    }
    images = [
        np.asarray(module.apply(weights, jnp.asarray(z, jnp.float32), method="decode"))
        for module, weights, z in rows.values()
    ]
    return plotting.image_table(np.stack(images), list(rows))


def _latents(dataset: data.Dataset, codes: np.ndarray, drawn: np.ndarray):
    """The two latents that vary most, of both models."""
    test = data.stack(dataset.test, len(codes))
    clouds = []
    for name, z in (("codes of the auto-encoder", codes), ("samples of q(z | x), VAE", drawn)):
        pair = np.sort(np.argsort(-z.var(axis=0), kind="stable")[:2])
        clouds.append(
            plotting.LatentScatter(
                z[: len(codes), pair],
                test.get("label"),
                title=name,
                names=tuple(f"z{place}" for place in pair),
            )
        )
    return plotting.aggregate_posterior(clouds)
