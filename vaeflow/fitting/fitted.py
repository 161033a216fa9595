"""Fitted models: densities, samples and files of what `vaeflow.fit` returns."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vaeflow import estimators
from vaeflow._util.checks import check_count
from vaeflow._util.messages import shown
from vaeflow.fitting.arrays import as_contexts, as_examples, as_numpy
from vaeflow.fitting.card import model_card
from vaeflow.fitting.ensemble import Ensemble
from vaeflow.models import FlowModel
from vaeflow.models.base import LatentVariableModel
from vaeflow.sharing.definition import describe
from vaeflow.sharing.save import SavedModel, read_saved, write_saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vaeflow.plotting import Style

PyTree = Any

POSTERIOR_SAMPLES = 100
"""Samples of the posterior of each example by which models with latents are evaluated."""


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Fitted:
    """A model with the variables that `vaeflow.fit` found, and how it found them.

    Attributes:
      model: The model that was trained: a `vaeflow.models.FlowModel`, with the standardisation as
        its last map, or another.
      variables: Its variables, those of the best validation; with an ensemble, each array has the
        members along its first axis.
      history: A record for each evaluation: "step", "wall_seconds", and metrics by name, those of
        the validation as ``validation_...``.
      summary: What was done, as JSON values.
    """

    model: nn.Module
    variables: Mapping[str, PyTree]
    history: tuple[Mapping[str, float], ...]
    summary: Mapping[str, Any]

    @property
    def num_members(self) -> int:
        """Number of models of the ensemble, 1 without."""
        return self.summary["members"]

    def member(self, index: int) -> Fitted:
        """Returns one model of the ensemble alone."""
        if not 0 <= index < self.num_members:
            raise ValueError(f"index must be from 0 to {self.num_members - 1}, got {index}")
        if self.num_members == 1:
            return self
        own = jax.tree.map(lambda leaf: leaf[index], dict(self.variables))
        summary = {**self.summary, "members": 1}
        return dataclasses.replace(self, variables=own, summary=summary)

    def distribution(self, *, context: Any = None, temperature: float = 1.0) -> Any:
        """Builds the distribution of data, of an ensemble the mixture of its members.

        Args:
          context: Labels or vectors with batch axes, which are those of the distribution, or None.
          temperature: Factor of the noise's deviations.

        Raises:
          ValueError: If the model isn't a density in closed form, as VAEs aren't.
        """
        if not isinstance(self.model, FlowModel):
            raise ValueError(
                f"a {type(self.model).__name__} has no density in closed form: use log_prob and "
                "sample, or model.apply(variables, ...) with the methods of the model"
            )
        context = None if context is None else self._context(context)
        if self.num_members > 1:
            return Ensemble(self.model, self.variables, context, temperature)
        return self.model.apply(self.variables, context=context, temperature=temperature)

    def log_prob(self, data: Any, *, context: Any = None, seed: int = 0) -> np.ndarray:
        """Computes the log-density of each example in nats, in the units of the data.

        It is exact for flows of reals. For uint8 images it is a lower bound on average over noise,
        and for models with latents the importance-weighted bound of 100 samples (Burda, Grosse &
        Salakhutdinov 2016, equation 8). Of an ensemble, that of the mixture.

        Args:
          data: Examples, ``[example, *event]``, of any library; see `vaeflow.fit`.
          context: One for each example, ``[example, *context]``, or one for all, ``[*context]``;
            None where the model has none.
          seed: Seed of the noise.

        Returns:
          Shape ``[example]``.

        Raises:
          ValueError: If type or shape doesn't fit, or the model has no likelihood.
        """
        terms = self.member_log_probs(data, context=context, seed=seed)
        return np.asarray(jax.nn.logsumexp(terms, axis=0) - math.log(len(terms)))

    def member_log_probs(self, data: Any, *, context: Any = None, seed: int = 0) -> np.ndarray:
        """Computes the log-densities under each member of an ensemble, ``[member, example]``.

        Their deviation over members is how much the fit, and not the data, is in doubt.
        """
        function = _log_likelihood if self._has_latents() else _log_prob
        if not self._has_latents() and not hasattr(self.model, "log_prob"):
            raise ValueError(f"a {type(self.model).__name__} has no likelihood")
        rows = as_examples("data", data, self._event_shape(), self._takes_images())
        batch = {"data": rows, "index": np.arange(len(rows), dtype=np.int32)}
        shared = None
        if context is not None:
            shared = self._context(context)
            if shared.ndim > len(self.summary["context_shape"] or ()):
                batch["context"] = as_contexts(shared, len(rows))
                shared = None
        limit = rows_at_once(self._event_shape())
        key = jax.random.key(seed)
        parts = [
            function(self.model, self._stacked(), part, shared, key)[:, :count]
            for part, count in _filled(batch, limit)
        ]
        if not parts:
            return np.zeros((self.num_members, 0), np.float32)
        return np.concatenate(jax.device_get(parts), axis=1)

    def sample(
        self, num_samples: int, *, context: Any = None, temperature: float = 1.0, seed: int = 0
    ) -> np.ndarray:
        """Samples data, in their units; of models with latents, means of p(x | z) as images.

        Args:
          num_samples: Number of samples, for each context if there is one.
          context: Labels ``[*batch]`` or vectors ``[*batch, context]``, or None.
          temperature: Factor of the noise's deviations.
          seed: Seed of the samples.

        Returns:
          Shape ``[num_samples, *batch, *event]``.

        Raises:
          ValueError: If the context doesn't fit, or the model can't be sampled.
        """
        check_count("num_samples", num_samples, 0)
        if not hasattr(self.model, "sample"):
            raise ValueError(f"a {type(self.model).__name__} has no distribution to sample")
        context = None if context is None else self._context(context)
        key = jax.random.key(seed)
        samples = _sample(self.model, num_samples, self._stacked(), context, key, temperature)
        if self.num_members == 1:
            return np.asarray(samples[0])
        batch = samples.shape[1 : samples.ndim - len(self._event_shape())]
        generator = np.random.default_rng(seed)
        chosen = generator.integers(self.num_members, size=batch)
        chosen = chosen.reshape((1, *batch) + (1,) * len(self._event_shape()))
        return np.take_along_axis(np.asarray(samples), chosen, axis=0)[0]

    def reconstruct(self, images: Any, *, context: Any = None, seed: int = 0) -> np.ndarray:
        """Encodes images and decodes them: means of p(x | z) at the model's code of each image.

        The code of a VAE is the mean of its posterior; see `vaeflow.models.VAE.encode`.

        Args:
          images: uint8 images, ``[example, height, width, channel]``, of any library.
          context: One label for each image, or one for all; None where the model has none.
          seed: Seed of the noise of the preprocessing.

        Returns:
          uint8 images of the same shape.

        Raises:
          ValueError: If type or shape doesn't fit, or the model has no latents, or is an ensemble.
        """
        if not self._has_latents():
            raise ValueError(
                f"a {type(self.model).__name__} has no latents to reconstruct images from"
            )
        if self.num_members > 1:
            raise ValueError(
                "reconstruct is of one model, got an ensemble: call member(index).reconstruct"
            )
        rows = as_examples("images", images, self._event_shape(), self._takes_images())
        batch = {"data": rows, "index": np.arange(len(rows), dtype=np.int32)}
        if context is not None:
            shared = np.asarray(self._context(context))
            batch["context"] = as_contexts(
                np.broadcast_to(shared, (len(rows),)) if shared.ndim == 0 else shared, len(rows)
            )
        key = jax.random.key(seed)
        parts = [
            _reconstruct(self.model, self.variables, part, key)[:count]
            for part, count in _filled(batch, rows_at_once(self._event_shape()))
        ]
        return np.concatenate([rows[:0], *jax.device_get(parts)])

    def plot_history(self, metric: str | None = None, *, style: Style | None = None) -> Figure:
        """Plots the loss, or another metric, of training and validation against the step.

        Args:
          metric: Its name in `history`, without ``validation_``; None for the one minimised.
          style: Colours and sizes of text; None for `vaeflow.plotting.LIGHT`.
        """
        from vaeflow import plotting

        metric = metric or self.summary["metric"]
        curves = {"training": metric, "validation": f"validation_{metric}"}
        label, style = metric.replace("_", " "), style or plotting.LIGHT
        return plotting.training_curve(self.history, curves, label=label, style=style)

    def save(self, path: str | os.PathLike[str], *, classes: Iterable[Any] = ()) -> None:
        """Writes one file of the model's definition, its variables, and how it was trained.

        Args:
          path: The file, such as "flow.safetensors"; `vaeflow.load_fitted` reads it.
          classes: Classes and functions of your own that the model is made of.

        Raises:
          OSError: If the file can't be written.
          ValueError: As `vaeflow.save`.
        """
        described = {"summary": dict(self.summary), "history": [dict(r) for r in self.history]}
        saved = SavedModel(self.model, {"fitted": _without_nan(described)}, self.variables)
        write_saved(path, saved, classes)

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        description: str = "",
        license: str = "",
        classes: Iterable[Any] = (),
    ) -> None:
        """Writes a folder to be shared: `model.safetensors`, `config.json` and a model card.

        The layout is that of model hubs; `vaeflow.fitting.from_pretrained` reads it.

        Args:
          folder: The folder; it is made if need be.
          description: What the model is of, in Markdown, for the card.
          license: Identifier of its licence, such as "apache-2.0".
          classes: See `save`.

        Raises:
          OSError: If a file can't be written.
          ValueError: As `save`.
        """
        place = pathlib.Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        self.save(place / MODEL_FILE, classes=classes)
        definition = describe(self.model, classes)
        config = {"library_name": "vaeflow", "model": definition, "summary": dict(self.summary)}
        content = json.dumps(_without_nan(config), indent=2) + "\n"
        (place / "config.json").write_text(content, encoding="utf-8")
        card = model_card(type(self.model).__name__, self.summary, description, license)
        (place / "README.md").write_text(card, encoding="utf-8")

    def __repr__(self) -> str:
        summary = self.summary
        flow = getattr(self.model, "flow", self.model)
        inner = getattr(flow, "flow", flow)
        parts = [
            f"{type(inner).__name__} of {list(self._event_shape())}",
            summary["standardized"],
            f"{summary['examples']} examples, {summary['validation_examples']} to validate",
            f"step {summary['step']} of {summary['last_step']}",
        ]
        if self.num_members > 1:
            parts.insert(0, f"ensemble of {self.num_members}")
        metric = f"validation_{summary['metric']}"
        if metric in summary["metrics"]:
            parts.append(f"{metric} {summary['metrics'][metric]:.4f}")
        return f"{type(self).__name__}({'; '.join(part for part in parts if part)})"

    def _event_shape(self) -> tuple[int, ...]:
        return event_shape_of(self.model)

    def _takes_images(self) -> bool:
        return takes_images(self.model)

    def _has_latents(self) -> bool:
        return isinstance(self.model, LatentVariableModel)

    def _context(self, value: Any) -> jax.Array:
        """A context with the axes of one condition last; numbers are vectors of one dimension."""
        array, shape = as_numpy("context", value), self.summary["context_shape"]
        if shape and np.issubdtype(array.dtype, np.integer):
            array = array.astype(np.float32)
        if shape == [1] and array.ndim < 2 and array.shape != (1,):
            array = array[..., None]
        return jnp.asarray(array)

    def _stacked(self) -> PyTree:
        """The variables with an axis of members."""
        if self.num_members > 1:
            return dict(self.variables)
        return jax.tree.map(lambda leaf: leaf[None], dict(self.variables))


MODEL_FILE = "model.safetensors"
"""Name of the model in the folder of a pretrained one."""


def load_fitted(path: str | os.PathLike[str], *, classes: Iterable[Any] = ()) -> Fitted:
    """Reads a file of `Fitted.save`.

    Args:
      path: The file.
      classes: Classes and functions of your own that the model is made of.

    Raises:
      OSError: If the file can't be read.
      ValueError: As `vaeflow.load`, or if the file holds no fitted model.
    """
    saved = read_saved(path, classes)
    described = saved.config.get("fitted")
    if saved.model is None or not isinstance(described, dict):
        raise ValueError(f"{shown(path)} holds no fitted model: read it with vaeflow.load")
    summary, history = described.get("summary"), described.get("history")
    if not isinstance(summary, dict) or not isinstance(history, list):
        raise ValueError(f"{shown(path)} is damaged: its fitted model has no summary or history")
    return Fitted(saved.model, saved.variables, tuple(history), summary)


def from_pretrained(folder: str | os.PathLike[str], *, classes: Iterable[Any] = ()) -> Fitted:
    """Reads a folder of `Fitted.save_pretrained`, such as one that was downloaded from a hub.

    Arguments and errors as `load_fitted`.
    """
    return load_fitted(pathlib.Path(folder) / MODEL_FILE, classes=classes)


def event_shape_of(model: nn.Module) -> tuple[int, ...]:
    """Shape of an example of a model's data.

    Raises:
      ValueError: If the model doesn't say so.
    """
    decoder = getattr(model, "decoder", None)
    shape = getattr(model, "event_shape", getattr(decoder, "image_shape", None))
    if shape is None:
        raise ValueError(
            f"a {type(model).__name__} doesn't say the shape of its data: it has neither "
            "event_shape nor a decoder of an image_shape"
        )
    return tuple(shape)


def rows_at_once(event_shape: tuple[int, ...]) -> int:
    """Number of examples that are evaluated at once: fewer of images than of vectors."""
    return 16_384 if len(event_shape) == 1 else 256


def takes_images(model: nn.Module) -> bool:
    """Whether a model takes uint8 images, and not reals."""
    return getattr(model, "dequantizer", getattr(model, "observation", None)) is not None


def _filled(batch: Mapping[str, np.ndarray], limit: int) -> Iterator[tuple[Any, int]]:
    """Yields parts of a batch, each filled up to one size, and the number of rows that count."""
    total = len(batch["index"])
    size = min(limit, total)
    for start in range(0, total, max(size, 1)):
        count = min(size, total - start)
        rows = start + np.arange(size) % count
        yield {name: array[rows] for name, array in batch.items()}, count


@functools.partial(jax.jit, static_argnums=0)
def _log_prob(
    model: nn.Module, variables: PyTree, batch: PyTree, shared: PyTree, key: jax.Array
) -> jax.Array:
    keys = _keys(key, batch["index"])
    context = batch.get("context", shared)

    def one(own: PyTree) -> jax.Array:
        noise = keys if takes_images(model) else None
        return model.apply(own, batch["data"], noise, context=context, method="log_prob")

    return jax.vmap(one)(variables)


@functools.partial(jax.jit, static_argnums=0)
def _log_likelihood(
    model: nn.Module, variables: PyTree, batch: PyTree, shared: PyTree, key: jax.Array
) -> jax.Array:
    keys = _keys(key, batch["index"])
    images = {"image": batch["data"]}
    context = batch.get("context", shared)
    if context is not None:
        images["context"] = jnp.broadcast_to(context, batch["index"].shape)
    name = None if context is None else "context"

    def one(own: PyTree) -> jax.Array:
        # One sample at a time: images of a hundred samples are many.
        def weight(number: jax.Array) -> jax.Array:
            rows = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
            found = estimators.evidence(model, own, images, rows, context_key=name)
            return found.log_weights()[0]

        weights = jax.lax.map(weight, jnp.arange(POSTERIOR_SAMPLES))
        return jax.nn.logsumexp(weights, axis=0) - math.log(POSTERIOR_SAMPLES)

    return jax.vmap(one)(variables)


@functools.partial(jax.jit, static_argnums=0)
def _reconstruct(model: nn.Module, variables: PyTree, batch: PyTree, key: jax.Array) -> jax.Array:
    keys, context = _keys(key, batch["index"]), batch.get("context")
    codes = model.apply(variables, batch["data"], keys, context=context, method="encode")
    return model.apply(variables, codes, context=context, method="decode")


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sample(
    model: nn.Module,
    num_samples: int,
    variables: PyTree,
    context: jax.Array | None,
    key: jax.Array,
    temperature: jax.Array,
) -> jax.Array:
    def one(own: PyTree, number: jax.Array) -> jax.Array:
        keys = jax.random.fold_in(key, number)
        options = {"context": context, "temperature": temperature}
        return model.apply(own, keys, num_samples, method="sample", **options)

    members = jax.tree.leaves(variables)[0].shape[0]
    return jax.vmap(one)(variables, jnp.arange(members))


def _keys(key: jax.Array, index: jax.Array) -> jax.Array:
    """A key for each example, which depends on its number alone."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def _without_nan(value: Any) -> Any:
    """JSON values with None for numbers that aren't finite."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
