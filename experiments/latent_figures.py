"""What is drawn of a variational auto-encoder."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

import vaeflow as vf
from experiments.latent_evaluation import VALIDATION, Evaluation
from experiments.latent_units import Unit, units_of
from vaeflow import data, distributions, plotting, training
from vaeflow.plotting.latents import latent_grid, normal_quantiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLES = 8
"""Rows of samples."""
STEPS = 8
"""Images of a path between two real ones."""
ROWS = 10
"""Latents that are traversed at most."""
DEVIATIONS = np.arange(-3, 4)
"""Where on the way of a latent its traversal is drawn."""
FRAMES = 13
"""Values on the same way in the animation."""
SIDE = 17
"""Images along each side of a manifold."""

PyTree = Any


class Drawing:
    """The figures of a run."""

    def __init__(
        self,
        model,
        dataset: data.Dataset,
        directory: training.RunDirectory,
        evaluation: Evaluation,
        bound: str = "negative_elbo",
    ):
        self.model, self.dataset, self.directory = model, dataset, directory
        self.evaluation, self.bound = evaluation, bound
        self.num_classes = getattr(model, "num_classes", None)
        self.sample = jax.jit(functools.partial(model.apply, method="sample"), static_argnums=2)
        self.decode = jax.jit(functools.partial(model.apply, method="decode"))
        self.encode = jax.jit(functools.partial(model.apply, method="encode"))

    def save(self, name: str, figure) -> None:
        plotting.save_figure(self.directory.figures / f"{name}.png", figure)

    def table(self, variables: PyTree) -> np.ndarray:
        """Samples ``[row, column, ...]``; with classes one for each, of the same noise in a row."""
        key = jax.random.key(1)
        if self.num_classes is None:
            images = np.asarray(self.sample(variables, key, 8 * SAMPLES))
            return images.reshape(SAMPLES, 8, *images.shape[1:])
        labels = np.arange(self.num_classes, dtype=np.int32)
        return np.stack([self.sample(variables, key, SAMPLES, label) for label in labels], axis=1)

    def samples(self, variables: PyTree, rows: int = SAMPLES) -> Figure:
        """Draws rows of the table of samples."""
        table = self.table(variables)[:rows]
        return plotting.image_grid(table.reshape(-1, *table.shape[2:]), table.shape[1])

    def progress(self, step: int, variables: PyTree) -> None:
        """Samples during training, from the same noise each time."""
        self.save(f"samples_step_{step:07d}", self.samples(variables, 2))

    def final(self, variables: PyTree) -> None:
        """All figures of the trained model."""
        self.save("samples", self.samples(variables))
        self.reconstructions(variables)
        self.interpolations(variables)
        self.traversals(variables)
        if self.model.num_latents > 1:
            self.aggregate_posterior(variables)
        if self.model.num_latents == 2 and self.num_classes is None:
            self.manifold(variables)
        records = self.directory.read_metrics()
        curves = {"training batches": self.bound, "validation": VALIDATION}
        self.save(
            "training_curve", plotting.training_curve(records, curves, {}, "negative ELBO, nats")
        )

    def reconstructions(self, variables: PyTree) -> None:
        """Test images and what becomes of them."""
        real, z, labels = self._encoded(variables)
        shown = np.asarray(self.decode(variables, z, *labels))
        self.save("reconstructions", plotting.reconstructions(real, shown))

    def interpolations(self, variables: PyTree) -> None:
        """From test images to others: along lines, and below each along a great circle."""
        real, z, labels = self._encoded(variables)
        paths, names = [], []
        for first in range(0, min(len(real) - 1, 6), 2):
            # Labels don't mix: that of the second image takes over in the middle.
            between = [np.repeat(each[first : first + 2], STEPS // 2) for each in labels]
            for name, path in (("linear", vf.linear_path), ("spherical", vf.spherical_path)):
                steps = self.decode(variables, path(z[first], z[first + 1], STEPS), *between)
                paths.append(np.concatenate([real[first, None], steps, real[first + 1, None]]))
                names.append(name)
        if paths:
            self.save("interpolations", plotting.interpolations(np.stack(paths), names))

    def traversals(self, variables: PyTree) -> None:
        """What the most used latents do to a test image, as a figure and an animation."""
        drawn = self.evaluation("sample", variables, self.dataset.test)
        chosen, kl = self._ranked(variables)
        chosen, kl = chosen[:ROWS], None if kl is None else kl[:ROWS]
        names = [unit.name for unit in chosen]
        images = self._moved(variables, chosen, DEVIATIONS, drawn)
        headings = [f"{value:d}" if self._standard else f"{value:+d} sd" for value in DEVIATIONS]
        self.save("traversals", plotting.traversals(images, names, kl, headings))
        way = np.linspace(DEVIATIONS[0], DEVIATIONS[-1], FRAMES)
        frames = plotting.traversal_frames(self._moved(variables, chosen, way, drawn), names)
        plotting.save_animation(self.directory.figures / "traversals.gif", frames, 0.1)

    def aggregate_posterior(self, variables: PyTree) -> None:
        """The two most used latents of the test data, by label and by component of the prior."""
        test = data.stack(self.dataset.test)
        drawn = self.evaluation("sample", variables, self.dataset.test)
        chosen, _ = self._ranked(variables)
        pair = sorted(chosen[:2], key=lambda unit: unit.start)
        places = np.array([unit.start for unit in pair])
        make = functools.partial(
            plotting.LatentScatter, drawn[places].T, names=tuple(unit.name for unit in pair)
        )
        clouds = []
        if "label" in test:
            clouds.append(make(test["label"], title="test data by label"))
        prior = self.model.apply(variables, method="prior")
        if isinstance(prior, distributions.Mixture):
            _, components = self.evaluation("component", variables, self.dataset.test)
            means, covariances = _ellipses(prior, places)
            title = "by component of the prior, with the components"
            clouds.append(make(components.astype(int), "component", means, covariances, title))
        self.save(
            "aggregate_posterior",
            plotting.aggregate_posterior(clouds or [make(title="test data")]),
        )

    def manifold(self, variables: PyTree) -> None:
        """All that two latents make, over the quantiles of a normal or over where the data are."""
        across = up = normal_quantiles(SIDE)
        if not self._standard:
            drawn = self.evaluation("sample", variables, self.dataset.test)
            across, up = np.linspace(*np.quantile(drawn, [0.01, 0.99], axis=1), SIDE, axis=1)
        images = self.decode(variables, jnp.asarray(latent_grid(across, up)))
        self.save("manifold", plotting.latent_manifold(np.asarray(images), across, up))

    @property
    def _standard(self) -> bool:
        """Whether the prior of each latent is a standard normal."""
        return isinstance(self.model, vf.models.VAE) and self.model.prior_model is None

    def _encoded(self, variables: PyTree) -> tuple[np.ndarray, jax.Array, list[np.ndarray]]:
        """Eight test images, their latents, and their labels if the model takes them."""
        batch = data.stack(self.dataset.test, 8)
        labels = [] if self.num_classes is None else [batch["label"]]
        z = self.encode(variables, batch["image"], jax.random.key(2), *labels)
        return batch["image"], z, labels

    def _ranked(self, variables: PyTree) -> tuple[list[Unit], np.ndarray | None]:
        """Real latents, the most used first, and their KLs, or None where no formula gives them.

        Without KLs those are used most whose middle varies most over the test data.
        """
        units = units_of(self.model)
        use = self.evaluation("kl", variables, self.dataset.test).mean(axis=1)
        known = not np.isnan(use).any()
        if not known:
            means = self.evaluation("encode", variables, self.dataset.test)
            use = np.var(means, axis=1)[[unit.start for unit in units]]
        order = [i for i in np.argsort(-use, kind="stable") if not units[i].categories]
        return [units[i] for i in order], use[order] if known else None

    def _moved(
        self, variables: PyTree, chosen: list[Unit], way: np.ndarray, drawn: np.ndarray
    ) -> np.ndarray:
        """A test image with one latent at each place of its way, ``[latent, place, ...]``.

        The way is in deviations from the mean: those of the prior where it is standard, else those
        over the test data.
        """
        _, z, labels = self._encoded(variables)
        label = [np.repeat(each[:1], len(way)) for each in labels]
        images = []
        for unit in chosen:
            values = way
            if not self._standard:
                values = drawn[unit.start].mean() + way * drawn[unit.start].std()
            moved = jnp.tile(z[0], (len(way), 1)).at[:, unit.start].set(values)
            images.append(np.asarray(self.decode(variables, moved, *label)))
        return np.stack(images)


def _ellipses(prior: distributions.Mixture, places: np.ndarray):
    """Means and covariances of a mixture's components in two latents; None if not known."""
    components = prior.components_distribution
    try:
        variances = np.asarray(components.variance())[:, places]
    except (AttributeError, NotImplementedError):
        return None, None
    return np.asarray(components.mean())[:, places], variances[:, :, None] * np.eye(2)
