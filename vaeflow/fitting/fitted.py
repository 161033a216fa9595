"""Fitted models: densities, samples and files of what `vaeflow.fit` returns."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vaeflow._util.checks import check_count
from vaeflow._util.messages import shown
from vaeflow.fitting.arrays import (
    as_contexts,
    as_examples,
    as_numpy,
    event_shape_of,
    rows_at_once,
    takes_images,
)
from vaeflow.fitting.card import model_card
from vaeflow.fitting.ensemble import (
    Ensemble,
    decode_rows,
    encode_rows,
    member_log_likelihood,
    member_log_prob,
    member_samples,
)
from vaeflow.models import FlowModel
from vaeflow.models.base import LatentVariableModel
from vaeflow.sharing.definition import describe
from vaeflow.sharing.save import SavedModel, read_saved, write_saved
from vaeflow.training import TrainConfig, TrainResult
from vaeflow.training.run_directory import package_versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vaeflow.plotting import Style

PyTree = Any


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
        function = member_log_likelihood if self._has_latents() else member_log_prob
        if not self._has_latents() and not hasattr(self.model, "log_prob"):
            raise ValueError(f"a {type(self.model).__name__} has no likelihood")
        rows = as_examples("data", data, self._event_shape(), self._takes_images())
        batch, shared = self._batch(rows, context)
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
        samples = member_samples(
            self.model, num_samples, self._stacked(), context, key, temperature
        )
        if self.num_members == 1:
            return np.asarray(samples[0])
        batch = samples.shape[1 : samples.ndim - len(self._event_shape())]
        generator = np.random.default_rng(seed)
        chosen = generator.integers(self.num_members, size=batch)
        chosen = chosen.reshape((1, *batch) + (1,) * len(self._event_shape()))
        return np.take_along_axis(np.asarray(samples), chosen, axis=0)[0]

    def encode(self, data: Any, *, context: Any = None, seed: int = 0) -> Any:
        """Encodes examples: to means of the posterior of a VAE, to the noise of a flow.

        Of other models, what their method `encode` returns: codes of an auto-encoder, indices of a
        VQ-VAE.

        Args:
          data: Examples, ``[example, *event]``, of any library; see `vaeflow.fit`.
          context: One for each example, or one for all; None where the model has none.
          seed: Seed of the noise of the preprocessing.

        Returns:
          Codes, with the examples along the first axis.

        Raises:
          ValueError: If type or shape doesn't fit, or the model has no codes, or is an ensemble.
        """
        rows = as_examples("data", data, self._event_shape(), self._takes_images())
        return self._in_parts(encode_rows, rows, context, jax.random.key(seed))

    def decode(self, codes: Any, *, context: Any = None) -> np.ndarray:
        """Decodes codes such as those of `encode`: of a VAE to means of p(x | z) as images.

        Args:
          codes: Latents ``[example, latent]`` or noise, or the arrays of a model's own codes.
          context: One for each code, or one for all; None where the model has none.

        Returns:
          Data, ``[example, *event]``.

        Raises:
          ValueError: As `encode`.
        """
        codes = jax.tree.map(np.asarray, codes)
        return self._in_parts(decode_rows, codes, context)

    def reconstruct(self, data: Any, *, context: Any = None, seed: int = 0) -> np.ndarray:
        """Encodes examples and decodes their codes; arguments and errors as `encode`."""
        return self.decode(self.encode(data, context=context, seed=seed), context=context)

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

    def _batch(self, values: PyTree, context: Any) -> tuple[dict[str, PyTree], jax.Array | None]:
        """A batch of values, with contexts if there is one for each, and one context for all."""
        count = len(jax.tree.leaves(values)[0])
        batch = {"values": values, "index": np.arange(count, dtype=np.int32)}
        if context is None:
            return batch, None
        context = self._context(context)
        if context.ndim > len(self.summary["context_shape"] or ()):
            return {**batch, "context": as_contexts(context, count)}, None
        return batch, context

    def _in_parts(self, function: Any, values: PyTree, context: Any, *arguments: Any) -> Any:
        """Applies a function to values and contexts, a part of the first axis at a time."""
        if not hasattr(self.model, "encode"):
            raise ValueError(f"a {type(self.model).__name__} has no codes")
        if self.num_members > 1:
            raise ValueError("an ensemble has no one code of an example: choose a member(index)")
        batch, shared = self._batch(values, context)
        count = len(batch["index"])
        if shared is not None:
            batch["context"] = np.broadcast_to(shared, (count, *shared.shape))
        compute = functools.partial(function, self.model)
        if not count:
            found = jax.eval_shape(compute, self.variables, batch, *arguments)
            return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), found)
        parts = [
            jax.tree.map(itemgetter(slice(own)), compute(self.variables, part, *arguments))
            for part, own in _filled(batch, rows_at_once(self._event_shape()))
        ]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *jax.device_get(parts))

    def _stacked(self) -> PyTree:
        """The variables with an axis of members."""
        if self.num_members > 1:
            return dict(self.variables)
        return jax.tree.map(lambda leaf: leaf[None], dict(self.variables))


MODEL_FILE = "model.safetensors"
"""Name of the model in the folder of a pretrained one."""


def summary_of(
    model: nn.Module, found: TrainResult, config: TrainConfig, **described: Any
) -> dict[str, Any]:
    """The summary of a `Fitted` model; `described` has the rest of it, and what isn't as here."""
    return {
        "members": 1,
        "examples": 0,
        "validation_examples": 0,
        "context": "",
        "context_shape": None,
        "standardized": "",
        **described,
        "step": found.step,
        "last_step": int(found.state.step),
        "event_shape": list(event_shape_of(model)),
        "options": dataclasses.asdict(config),
        "versions": package_versions(),
    }


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


def _filled(batch: Mapping[str, np.ndarray], limit: int) -> Iterator[tuple[Any, int]]:
    """Yields parts of a batch, each filled up to one size, and the number of rows that count."""
    total = len(batch["index"])
    size = min(limit, total)
    for start in range(0, total, max(size, 1)):
        count = min(size, total - start)
        rows = start + np.arange(size) % count
        yield jax.tree.map(itemgetter(rows), batch), count


def _without_nan(value: Any) -> Any:
    """JSON values with None for numbers that aren't finite."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
