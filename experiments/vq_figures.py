"""Figures of an auto-encoder with codes and of its priors."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

import vaeflow as vf
from experiments.image_scores import draw_samples
from vaeflow import data, metrics, plotting, training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPERATURES = (0.7, 0.85, 1.0)
COLUMNS = 8
"""Images in a row."""

PyTree = Any
Counts = Mapping[str, np.ndarray]


class Drawing:
    """The figures of a run."""

    def __init__(
        self,
        model: vf.models.CodeModel,
        dataset: data.Dataset,
        directory: training.RunDirectory,
        names: tuple[str, ...],
    ):
        self.model, self.dataset, self.directory, self.names = model, dataset, directory, names
        coder = model.auto_encoder
        self.encode = jax.jit(functools.partial(coder.apply, method="encode"))
        self.decode = jax.jit(functools.partial(coder.apply, method="decode"))
        self.sample = jax.jit(functools.partial(model.apply, method="sample"), static_argnums=2)

    def save(self, name: str, figure: Figure) -> None:
        plotting.save_figure(self.directory.figures / f"{name}.png", figure)

    def progress(self, step: int, variables: PyTree) -> None:
        """Reconstructions during training, of validation images."""
        images = data.stack(self.dataset.validation, COLUMNS)["image"]
        codes = self.encode(variables, images, jax.random.key(2))
        shown = np.asarray(self.decode(variables, codes))
        self.save(f"reconstructions_step_{step:07d}", plotting.reconstructions(images, shown))

    def final(self, variables: PyTree, counts: Counts) -> None:
        """All figures of the trained model."""
        self.save("code_usage", plotting.code_usage(counts))
        self.reconstructions(variables, counts)
        self.samples(variables)
        self.nearest(variables)
        self.curves()

    def reconstructions(self, variables: PyTree, counts: Counts) -> None:
        """Test images, and what comes of their codes: of all levels, or of the upper ones alone.

        In place of the codes of levels that are left out there is the mean of a level's codes, each
        weighted by its use; or codes that the priors draw, given those above.
        """
        batch = data.stack(self.dataset.test, COLUMNS)
        images, labels = batch["image"], self._labels(len(batch["image"]), batch.get("label"))
        own = vf.models.submodel(self.model, variables, "auto_encoder")[1]
        codes = self.encode(own, images, jax.random.key(2))
        whole = np.asarray(self.decode(own, codes))
        if len(self.names) == 1:
            self.save("reconstructions", plotting.reconstructions(images, whole))
            return
        rows = {"input": images}
        for kept in range(1, len(self.names)):
            upper = " + ".join(self.names[:kept])
            rows[f"{upper},\nmeans below"] = self._without_lower(own, codes, kept, counts)
            rows[f"{upper},\ndrawn below"] = self.sample(
                variables, jax.random.key(3), len(images), labels, upper_codes=tuple(codes[:kept])
            )
        rows[" + ".join(self.names)] = whole
        self.save("reconstructions", plotting.image_table(np.stack([*rows.values()]), [*rows]))

    def _without_lower(
        self, own: PyTree, codes: Sequence[jax.Array], kept: int, counts: Counts
    ) -> np.ndarray:
        """Images of the codes of the upper levels, and of the mean codes of those below."""

        def show(coder: vf.models.CodeAutoEncoder, codes: Sequence[jax.Array]) -> jax.Array:
            values = []
            for level, (quantizer, indices) in enumerate(zip(coder.quantizers, codes, strict=True)):
                found = quantizer.lookup(indices)
                if level >= kept:
                    uses = jnp.asarray(counts[self.names[level]], jnp.float32)
                    mean = uses @ quantizer.lookup(jnp.arange(uses.size)) / jnp.sum(uses)
                    found = jnp.broadcast_to(mean, found.shape)
                values.append(found)
            return coder.show(coder.merge(values))

        return np.asarray(
            jax.jit(functools.partial(self.model.auto_encoder.apply, method=show))(own, codes)
        )

    def samples(self, variables: PyTree) -> None:
        """Samples, and the same noise at several temperatures."""
        count = COLUMNS * COLUMNS
        drawn = self.sample(variables, jax.random.key(1), count, self._labels(count))
        self.save("samples", plotting.image_grid(drawn, COLUMNS))
        rows = [
            self.sample(
                variables, jax.random.key(4), COLUMNS, self._labels(COLUMNS), temperature=value
            )
            for value in TEMPERATURES
        ]
        self.save(
            "samples_by_temperature", plotting.temperature_samples(np.stack(rows), TEMPERATURES)
        )

    def many(self, variables: PyTree, count: int) -> np.ndarray:
        """So many samples, with labels in turn where the priors take them."""

        def draw(key: jax.Array, number: int) -> jax.Array:
            return self.sample(variables, key, number, self._labels(number))

        return draw_samples(draw, jax.random.key(5), count)

    def nearest(self, variables: PyTree) -> None:
        """Samples above those of the first 20,000 training images that are nearest to them."""
        labels = self._labels(COLUMNS)
        drawn = np.asarray(self.sample(variables, jax.random.key(4), COLUMNS, labels))
        train = data.stack(self.dataset.train, 20_000)["image"]
        if self.flipped:
            train = np.concatenate([train, train[:, :, ::-1]])
        places = metrics.nearest_neighbors(drawn, train, num_neighbors=2)[0]
        self.save("nearest_training_images", plotting.nearest_images(drawn, train[places]))

    def curves(self) -> None:
        """Training and validation curves of the auto-encoder and of each prior."""
        self._curve("training_curve", self.directory, "reconstruction", "reconstruction, nats")
        for name in self.names:
            folder = dataclasses.replace(self.directory, path=self.directory.path / f"prior_{name}")
            label = f"-log P({name}), nats"
            self._curve(f"prior_curve_{name}", folder, "negative_log_likelihood", label)

    def _curve(self, name: str, directory: training.RunDirectory, metric: str, label: str) -> None:
        curves = {"training batches": metric, "validation": f"validation_{metric}"}
        self.save(name, plotting.training_curve(directory.read_metrics(), curves, {}, label))

    def _labels(self, count: int, own: np.ndarray | None = None) -> np.ndarray | None:
        """Labels for so many images, in turn or their own; None where the priors take none."""
        if self.model.num_classes is None:
            return None
        return np.arange(count, dtype=np.int32) % self.model.num_classes if own is None else own

    @property
    def flipped(self) -> bool:
        """Whether mirror images are trained on as well."""
        return self.directory.config["data"]["flip"]
