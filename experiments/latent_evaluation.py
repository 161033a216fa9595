"""What is measured and drawn of a variational auto-encoder."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vaeflow as vf
from vaeflow import data, losses, metrics, plotting, training

VALIDATION = "validation_negative_elbo"
BATCH = 100
"""Images that are measured at once."""

PyTree = Any


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
