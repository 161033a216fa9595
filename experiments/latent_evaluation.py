"""What is measured and drawn of a variational auto-encoder."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

import vaeflow as vf
from vaeflow import data, losses, metrics, plotting, training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VALIDATION = "validation_negative_elbo"
BATCH = 100
"""Images that are measured at once."""
ROWS = 8
"""Rows of samples in a figure."""

PyTree = Any


class Evaluation:
    """What is measured of the model, with noise that depends on the example alone."""

    def __init__(self, model: vf.models.VAE | vf.models.HierarchicalVAE, samples: int):
        condition = condition_of(model)

        def context_of(batch: PyTree) -> jax.Array | None:
            return None if condition is None else batch[condition]

        @jax.jit
        def bound(variables: PyTree, batch: PyTree) -> jax.Array:
            found = losses.evidence(model, variables, batch, keys_of(batch), condition=condition)
            groups = found.latents.kl_by_group()
            return jnp.stack([-found.log_likelihood[0], *groups.values()])

        @jax.jit
        def log_likelihood(variables: PyTree, batch: PyTree) -> jax.Array:
            return metrics.importance_weighted_log_likelihood(
                model,
                variables,
                batch["image"],
                keys_of(batch),
                samples=samples,
                chunk=100,
                context=context_of(batch),
            )[None]

        # In a hierarchy a level's mean moves with those above, whatever it adds itself.
        method = "shifts" if isinstance(model, vf.models.HierarchicalVAE) else "encode"

        @jax.jit
        def encode(variables: PyTree, batch: PyTree) -> jax.Array:
            images, context = batch["image"], context_of(batch)
            return model.apply(variables, images, keys_of(batch), context, method=method).T

        self._functions = {"bound": bound, "log_likelihood": log_likelihood, "encode": encode}

    def __call__(self, name: str, variables: PyTree, source: data.Source) -> np.ndarray:
        """Values of each example of a split, ``[value, example]``."""
        found = []
        for batch in data.epoch_batches(source, BATCH):
            count = len(batch["index"])
            rows = np.arange(BATCH) % count  # filled up, for one shape is compiled
            filled = {key: values[rows] for key, values in batch.items()}
            found.append(np.asarray(self._functions[name](variables, filled))[:, :count])
        return np.concatenate(found, axis=1, dtype=np.float64)


def condition_of(model: vf.models.VAE | vf.models.HierarchicalVAE) -> str | None:
    """Name of the entry of a batch that is the model's context."""
    return None if model.classes is None else "label"


def keys_of(batch: PyTree) -> jax.Array:
    """Keys that depend on the numbers of the examples alone."""
    return jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(0)))(batch["index"])


class Drawing:
    """The figures of a run."""

    def __init__(self, model, dataset: data.Dataset, directory: training.RunDirectory):
        self.dataset, self.directory, self.classes = dataset, directory, model.classes
        self.sample = jax.jit(functools.partial(model.apply, method="sample"), static_argnums=2)
        self.decode = jax.jit(functools.partial(model.apply, method="decode"))
        self.encode = jax.jit(functools.partial(model.apply, method="encode"))

    def save(self, name: str, figure) -> None:
        plotting.save_figure(self.directory.figures / f"{name}.png", figure)

    def table(self, variables) -> np.ndarray:
        """Samples ``[row, column, ...]``; with classes one for each, of the same noise in a row."""
        key = jax.random.key(1)
        if self.classes is None:
            images = np.asarray(self.sample(variables, key, 8 * ROWS))
            return images.reshape(ROWS, 8, *images.shape[1:])
        labels = np.arange(self.classes, dtype=np.int32)
        return np.stack([self.sample(variables, key, ROWS, label) for label in labels], axis=1)

    def samples(self, variables, rows: int = ROWS) -> Figure:
        """Draws rows of the table of samples."""
        table = self.table(variables)[:rows]
        return plotting.image_grid(table.reshape(-1, *table.shape[2:]), table.shape[1])

    def progress(self, step: int, variables) -> None:
        """Samples during training, from the same noise each time."""
        self.save(f"samples_step_{step:07d}", self.samples(variables, 2))

    def final(self, variables) -> None:
        """All figures of the trained model."""
        self.save("samples", self.samples(variables))
        batch = data.stack(self.dataset.test, 8)
        real, labels = batch["image"], batch["label"] if self.classes is not None else None
        z = self.encode(variables, real, jax.random.key(2), labels)
        shown = np.asarray(self.decode(variables, z, labels))
        self.save("reconstructions", plotting.reconstructions(real, shown))
        weights = jnp.linspace(0, 1, 8)[:, None]
        paths = []
        for i in range(0, len(z) - 1, 2):
            # Labels don't mix: that of the second image takes over in the middle.
            between = None if labels is None else np.repeat(labels[i : i + 2], 4)
            path = (1 - weights) * z[i] + weights * z[i + 1]
            paths.append(np.asarray(self.decode(variables, path, between)))
        self.save("interpolations", plotting.interpolations(np.stack(paths)))
        records = self.directory.read_metrics()
        curves = {"training batches": "negative_elbo", "validation": VALIDATION}
        self.save(
            "training_curve", plotting.training_curve(records, curves, {}, "negative ELBO, nats")
        )
