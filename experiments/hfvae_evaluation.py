"""What is measured and drawn of a model of a style and a category."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import entr

import vaeflow as vf
from experiments.latent_evaluation import BATCH, VALIDATION, filled_batches, keys_of
from vaeflow import data, estimators, metrics, plotting, training
from vaeflow.distributions.grouped import per_dim_kl
from vaeflow.estimators import split_rows

DRAWN = 2000
"""Test images, at most, a sample of whose posterior the total correlations are averaged over."""
ACROSS = 10
"""Styles that each category is drawn with."""
VALUES = np.linspace(-3, 3, 7, dtype=np.float32)
"""Values of a style latent, all others being 0."""
SHOWN = 3
"""Categories, the most frequent ones, that each style is drawn with; and styles, those of the
largest KL, that each category is drawn with."""

PyTree = Any


class Evaluation:
    """What is measured of the model, with noise that depends on the example alone."""

    def __init__(self, model: vf.models.VAE):
        @jax.jit
        def bound(variables: PyTree, batch: PyTree) -> dict[str, jax.Array]:
            found = estimators.evidence(model, variables, batch, keys_of(batch))
            groups = found.latents.kl_by_group()
            kl = {f"kl/{name}": value for name, value in groups.items()}
            return {"reconstruction": -found.log_likelihood[0], "kl": sum(groups.values()), **kl}

        @jax.jit
        def infer(variables: PyTree, batch: PyTree) -> tuple[PyTree, jax.Array]:
            first, second = split_rows(keys_of(batch), BATCH)
            values = model.apply(variables, batch["image"], first, method="observe").values
            posterior = model.apply(variables, values, method="posterior")
            return posterior, model.apply(variables, values, second, method="infer").z[0]

        @jax.jit
        def aggregate(posterior: PyTree, z: jax.Array, same: jax.Array) -> PyTree:
            return estimators.aggregate_log_densities(posterior, z, same, same.shape[1])

        self._bound, self._infer, self._aggregate = bound, infer, aggregate
        self._model = model

    def bound(self, variables: PyTree, source: data.Source) -> dict[str, float]:
        """Means over a split: the negative ELBO, its parts, and the KL of each group, in nats."""
        sums: dict[str, float] = {}
        for batch, count in filled_batches(source):
            for name, values in self._bound(variables, batch).items():
                sums[name] = sums.get(name, 0.0) + float(
                    np.asarray(values, np.float64)[:count].sum()
                )
        found = {name: value / len(source) for name, value in sums.items()}
        return {"negative_elbo": found["reconstruction"] + found["kl"], **found}

    def posterior(self, variables: PyTree, source: data.Source) -> tuple[PyTree, jax.Array]:
        """q(z | x) of all examples of a split as one batch, and a sample of each.

        Categories are drawn as corners of the simplex, each with its probability.
        """
        parts, samples = [], []
        for batch, count in filled_batches(source):
            posterior, z = self._infer(variables, batch)
            parts.append(jax.tree.map(lambda leaf, count=count: leaf[:count], posterior))
            pieces = posterior.split(z)
            chosen = jnp.argmax(pieces["category"], axis=-1)  # exact, whatever the temperature
            pieces["category"] = jax.nn.one_hot(chosen, pieces["category"].shape[-1])
            samples.append(jnp.concatenate(list(pieces.values()), axis=-1)[:count])
        together = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
        return together, jnp.concatenate(samples)

    def correlations(self, posterior: PyTree, z: jax.Array) -> dict[str, float]:
        """Total correlations between the groups and within the style, in nats.

        Those of the aggregate posterior of the given examples, all of which it is made of.
        """
        drawn = min(DRAWN, len(z))
        between, within = [], []
        for start in range(0, drawn, BATCH):
            rows = np.arange(start, start + BATCH) % drawn  # filled up, as in `filled_batches`
            found = self._aggregate(posterior, z[rows], rows[:, None] == np.arange(len(z)))
            between.append(found.joint - sum(found.groups.values()))
            within.append(found.groups["style"] - found.dimensions["style"].sum(-1))
        parts = {"total_correlation": between, "total_correlation/style": within}
        return {
            name: float(np.concatenate(values, dtype=np.float64)[:drawn].mean())
            for name, values in parts.items()
        }

    def category(self, posterior: PyTree, labels: np.ndarray | None) -> dict[str, float]:
        """What the category tells of the image, in nats, and how well it agrees with labels.

        I(x; c) = H(mean pi) - mean H(pi) of the probabilities pi(x).
        """
        probability = np.asarray(posterior.groups["category"].mean(), np.float64)
        marginal = probability.mean(axis=0)
        found = {
            "category_mutual_information": entr(marginal).sum() - entr(probability).sum(-1).mean(),
            "category_entropy": entr(marginal).sum(),
        }
        if labels is not None:
            found["cluster_accuracy"] = metrics.cluster_accuracy(probability.argmax(1), labels)
        return {name: float(value) for name, value in found.items()}


class Drawing:
    """The figures of a run."""

    def __init__(
        self, model: vf.models.VAE, dataset: data.Dataset, directory: training.RunDirectory
    ):
        self.model, self.dataset, self.directory = model, dataset, directory
        self.sample = jax.jit(functools.partial(model.apply, method="sample"), static_argnums=2)
        self.decode = jax.jit(functools.partial(model.apply, method="decode"))

    def save(self, name: str, figure) -> None:
        plotting.save_figure(self.directory.figures / f"{name}.png", figure)

    def progress(self, step: int, variables) -> None:
        """Samples during training, from the same noise each time."""
        samples = np.asarray(self.sample(variables, jax.random.key(1), 16))
        self.save(f"samples_step_{step:07d}", plotting.image_grid(samples, 8))

    def final(self, variables: PyTree, posterior: PyTree, z: jax.Array) -> None:
        """All figures of the trained model, from the posteriors of the test images."""
        samples = np.asarray(self.sample(variables, jax.random.key(1), 64))
        self.save("samples", plotting.image_grid(samples, 8))
        real = data.stack(self.dataset.test, 8)["image"]
        decoded = np.asarray(self.decode(variables, z[: len(real)]))
        self.save("reconstructions", plotting.reconstructions(real, decoded))

        style, category = (part.event_shape[0] for part in posterior.groups.values())
        corners = np.eye(category, dtype=np.float32)
        names = self._names(posterior)
        noise = np.asarray(jax.random.normal(jax.random.key(2), (ACROSS, style)))
        images = self._decoded(variables, noise[None], corners[:, None])
        self.save("categories", plotting.traversals(images, names))

        kl = np.asarray(jnp.mean(_kl_of_styles(posterior), axis=0))
        order = np.argsort(-kl)
        moved = VALUES[:, None, None] * np.eye(style, dtype=np.float32)[order]
        shares = np.bincount(np.argmax(posterior.groups["category"].mean(), -1), minlength=category)
        often = np.sort(np.argsort(-shares, kind="stable")[:SHOWN])
        # [style, category, value], then a strip of values for each category.
        images = self._decoded(
            variables, moved.swapaxes(0, 1)[:, None], corners[often][None, :, None]
        )
        strips = images.reshape(style, -1, *images.shape[3:])
        heads = [""] * strips.shape[1]
        heads[len(VALUES) // 2 :: len(VALUES)] = [names[number] for number in often]
        rows = [f"style {number}" for number in order]
        self.save("styles", plotting.traversals(strips, rows, kl[order], heads))
        for place in range(min(SHOWN, style)):
            images = self._decoded(variables, moved[None, :, place], corners[:, None])
            figure = plotting.traversals(images, names, values=VALUES)
            self.save(f"category_by_style_{place + 1}", figure)

        records = self.directory.read_metrics()
        curves = {"training batches": "negative_elbo", "validation": VALIDATION}
        figure = plotting.training_curve(records, curves, {}, "negative ELBO, nats")
        self.save("training_curve", figure)

    def _decoded(self, variables: PyTree, style: np.ndarray, corner: np.ndarray) -> np.ndarray:
        """Images of all pairs of a style and a category, whose batch axes broadcast."""
        batch = np.broadcast_shapes(style.shape[:-1], corner.shape[:-1])
        parts = [np.broadcast_to(part, (*batch, part.shape[-1])) for part in (style, corner)]
        return np.asarray(self.decode(variables, np.concatenate(parts, axis=-1)))

    def _names(self, posterior: PyTree) -> list[str]:
        """The categories, each with the label that most of its test images have."""
        probability = posterior.groups["category"].mean()
        names = [f"category {number}" for number in range(probability.shape[-1])]
        if self.dataset.num_classes is None:
            return names
        labels = data.stack(self.dataset.test)["label"]
        chosen = np.argmax(probability, axis=-1)
        for number in np.unique(chosen):
            counts = np.bincount(labels[chosen == number])
            share = 100 * counts.max() / counts.sum()
            names[number] += f"\n{share:.0f} % label {counts.argmax()}"
        return names


def _kl_of_styles(posterior: PyTree) -> jax.Array:
    """KL of each style latent to the standard normal, [example, style], in nats."""
    style = posterior.groups["style"]
    prior = vf.distributions.standard_normal(style.event_shape)
    return per_dim_kl(style, prior)["z"]
