"""`fit` trains a model on data in memory."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from vaeflow import losses, training
from vaeflow._util.arrays import row_keys
from vaeflow._util.checks import check_count
from vaeflow.data.batches import stack
from vaeflow.fitting.arrays import (
    ArrayBatches,
    IterableBatches,
    as_contexts,
    as_examples,
    event_shape_of,
    rows_at_once,
    takes_images,
)
from vaeflow.fitting.ensemble import EnsembleLoss
from vaeflow.fitting.fitted import Fitted, summary_of
from vaeflow.flows import BoundedFlow, StandardizedFlow
from vaeflow.flows.wrappers import Wrapped
from vaeflow.models import FlowModel
from vaeflow.models.base import LatentVariableModel
from vaeflow.models.preprocessing import FLOW_ATTRIBUTES

PyTree = Any
Loss = Callable[..., Any]

METRICS = {losses.negative_log_likelihood: "negative_log_likelihood", losses.elbo: "negative_elbo"}
"""The metric of a loss, in nats, by which the best step is chosen; "loss" for others."""

INITIAL_ROWS = 32_768
"""Vectors that scales and other data-dependent parameters are taken from."""


def fit(
    model: Any,
    data: Any,
    *,
    context: Any = None,
    loss: Loss | None = None,
    validation: Any = 0.1,
    steps: int | None = None,
    batch_size: int = 256,
    learning_rate: float = 3e-3,
    patience: int = 10,
    ema_decay: float = 0.995,
    optimizer: optax.GradientTransformation | None = None,
    weights: Mapping[str, Any] | None = None,
    standardize: bool | None = None,
    ensemble: int = 1,
    seed: int = 0,
    directory: str | None = None,
    progress: bool = True,
) -> Fitted:
    """Trains a flow, a `FlowModel` or any model with a loss, on data in memory.

    A share of the examples is kept from training; every so many steps the model is evaluated on it,
    and the variables of the best evaluation are those returned. Training ends when `patience`
    evaluations in a row were no better, or after `steps`.

    Args:
      model: A module of `vaeflow.flows`, a `vaeflow.models.FlowModel`, or another model.
      data: Examples ``[example, *event]``: an array of NumPy or JAX, a frame of pandas or Polars,
        a tensor of PyTorch; reals for flows, uint8 for models of images. Or a
        `vaeflow.data.Dataset` or `Table`. Or an iterable of batches, such arrays or pairs of one
        and its contexts, which then needs `steps` and has no share for validation.
      context: Conditions: labels ``[example]`` or vectors ``[example, context]`` of any library;
        for a `Dataset`, the name of an entry, "label".
      loss: See `vaeflow.losses`; None for the negative log-likelihood, or the negative ELBO of a
        model with latents.
      validation: The share of the examples kept from training, or examples of their own, or a pair
        of these and their contexts; 0 for none. Ignored for a `Dataset`, which has its own.
      steps: Largest number of steps; None for one that grows with the data, see `default_steps`.
      batch_size: Examples in a batch.
      learning_rate: Of Adam, at the start; it falls to zero along half a cosine.
      patience: Evaluations without improvement after which training ends; 0 for none.
      ema_decay: Decay of moving averages of the parameters, which are then evaluated and returned;
        0 for none.
      optimizer: An Optax transformation in place of Adam with its rate and clipped gradients.
      weights: Keyword arguments of the loss, numbers or schedules of the step, such as
        ``{"beta": optax.linear_schedule(0.0, 1.0, 1000)}``.
      standardize: Whether each dimension of the data, and of contexts, is standardised within the
        model, so that densities remain those of the data; None for vectors alone, unless the flow
        ends in a map of its own to them, as a `BoundedFlow` and a `TransformedFlow` do.
      ensemble: Number of models that are trained at once, from different parameters.
      seed: Seed of the split, the parameters, the order and the noise.
      directory: A directory of a run, such as "runs/flow": the same call again resumes it, or
        returns what it has found. Needs ``vaeflow[experiments]``.
      progress: Whether to show a progress bar.

    Returns:
      The trained model, with densities and samples in the units of the data.

    Raises:
      ValueError: If data, contexts or options don't fit the model or one another.
      vaeflow.training.NonFiniteError: If the loss isn't finite.
    """
    check_count("ensemble", ensemble)
    loss = loss or _default_loss(model)
    split = _split(model, data, context, validation, seed)
    model, standardized = _standardized(model, split, standardize)
    metric = METRICS.get(getattr(loss, "func", loss), "loss")
    bound_loss = _bound_loss(loss, split)
    if ensemble > 1:
        bound_loss = EnsembleLoss(bound_loss)

    count = split.count
    if count is not None:
        batch_size = min(batch_size, count)
    devices = jax.device_count()
    batch_size = max(batch_size // devices, 1) * devices
    if steps is None:
        if count is None:
            raise ValueError("steps must be given for an iterable of batches, got None")
        steps = default_steps(count, batch_size)
    check_count("steps", steps)
    every = min(steps, max(50, (count or 0) // batch_size))
    config = training.TrainConfig(
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        learning_rate=learning_rate,
        schedule="cosine",
        clip_norm=5.0,
        ema_decay=ema_decay,
        # Batches of iterables come one at a time.
        scan_steps=1 if split.batches else every,
        log_every=every,
        evaluate_every=every,
        patience=patience if split.validation else 0,
        checkpoint_every=every,
    )
    batches = split.batches or ArrayBatches(split.training, batch_size, seed)
    initialize = _initializer(model, split, batch_size, ensemble, seed)
    held = split.validation
    evaluate = _evaluation(model, bound_loss, held, weights, split.data) if held else None
    history = History()
    opened = None
    if directory is not None:
        opened = training.open_run_directory(directory, config, experiment="fit")
    found = training.train(
        model,
        bound_loss,
        batches,
        config,
        opened,
        optimizers=optimizer,
        initialize=initialize,
        weights=weights,
        evaluate=evaluate,
        best=f"validation_{metric}" if evaluate else None,
        loggers=[history.opened],
        progress=progress,
    )
    records = opened.read_metrics() if opened else history.records
    summary = summary_of(
        model,
        found,
        config,
        loss=_name_of(loss),
        metric=metric,
        metrics=dict(found.metrics),
        members=ensemble,
        examples=count or 0,
        validation_examples=split.validation_count,
        context=split.context_description,
        context_shape=split.context_shape,
        standardized=standardized,
    )
    return Fitted(model, found.variables, tuple(records), summary)


def default_steps(examples: int, batch_size: int) -> int:
    """Largest number of steps by default: 200 epochs, but from 1,000 to 20,000 steps.

    Args:
      examples: Number of examples to train on.
      batch_size: Examples in a batch.
    """
    return int(np.clip(200 * examples // batch_size, 1000, 20_000))


# Data


@dataclasses.dataclass(frozen=True)
class _Split:
    """Examples to train and to validate on, by entry of a batch.

    Attributes:
      training: Arrays by name, `{}` for an iterable.
      validation: Arrays by name, `{}` for none.
      batches: The batches of an iterable, if data are one.
      data: Name of the entry of the examples, "image" or "vector".
      context: Name of the entry of the contexts, or None.
    """

    training: Mapping[str, np.ndarray]
    validation: Mapping[str, np.ndarray]
    batches: IterableBatches | None
    data: str
    context: str | None

    @property
    def count(self) -> int | None:
        """Number of examples to train on, None where it isn't known."""
        return None if self.batches is not None else len(self.training[self.data])

    @property
    def validation_count(self) -> int:
        """Number of examples to validate on."""
        return len(self.validation[self.data]) if self.validation else 0

    @property
    def context_shape(self) -> list[int] | None:
        """Shape of one context, None for none."""
        if self.context is None:
            return None
        first = self.batches.first if self.batches else self.training
        return list(first[self.context].shape[1:])

    @property
    def context_description(self) -> str:
        """The contexts in words, empty for none."""
        if self.context is None:
            return ""
        return "labels" if self.context == "label" else f"contexts of shape {self.context_shape}"


def _split(model: Any, data: Any, context: Any, validation: Any, seed: int) -> _Split:
    """Splits data into examples to train and to validate on."""
    shape, images = event_shape_of(model), takes_images(model)
    name = "image" if len(shape) == 3 else "vector"
    if hasattr(data, "train") and hasattr(data, "validation"):
        parts = stack(data.train), stack(data.validation) if len(data.validation) else {}
        if context is not None and context not in parts[0]:
            raise ValueError(
                f"context must be an entry of the data set, one of {sorted(parts[0])}, got "
                f"{context!r}"
            )
        chosen = [name] if context is None else [name, context]
        own, held = ({entry: part[entry] for entry in chosen if part} for part in parts)
        as_examples("data", own[name], shape, images)
        return _Split(own, held, None, name, context)
    is_array = hasattr(data, "__array__") or isinstance(data, list | np.ndarray)
    if not is_array and isinstance(data, Iterable):
        endless = _batches_of(data, name, shape, images)
        first = next(endless)
        entry = next((entry for entry in first if entry != name), None)
        return _Split({}, {}, IterableBatches(first, endless), name, entry)

    rows = as_examples("data", data, shape, images)
    given = None if context is None else as_contexts(context, len(rows))
    entry = None if given is None else _entry_of(given)
    arrays = {name: rows} | ({entry: given} if entry else {})
    if not isinstance(validation, int | float):
        held_rows, held_context = (
            validation if isinstance(validation, tuple) else (validation, None)
        )
        held = {name: as_examples("validation", held_rows, shape, images)}
        if (held_context is None) != (entry is None):
            raise ValueError("validation must be a pair of examples and contexts where data are")
        if entry:
            held[entry] = as_contexts(held_context, len(held[name]), "contexts of validation")
        return _Split(arrays, held, None, name, entry)
    if not 0 <= validation < 1:
        raise ValueError(f"validation must be a share in [0, 1), or examples, got {validation}")
    order = np.random.default_rng([seed, len(rows)]).permutation(len(rows))
    count = round(validation * len(rows))
    if len(rows) - count < 1:
        raise ValueError(f"data must hold examples to train on, got {len(rows)}")
    held = {key: array[order[:count]] for key, array in arrays.items()} if count else {}
    own = {key: array[order[count:]] for key, array in arrays.items()}
    return _Split(own, held, None, name, entry)


def _entry_of(context: np.ndarray) -> str:
    """Name of the entry of contexts in a batch."""
    return "label" if np.issubdtype(context.dtype, np.integer) else "context"


def _batches_of(data: Iterable[Any], name: str, shape: tuple[int, ...], images: bool) -> Any:
    """Yields the batches of an iterable, by entry; again from the start where it ends."""
    number = 0
    while True:
        start = number
        for item in data:
            pair = isinstance(item, tuple | list) and len(item) == 2
            rows = as_examples(f"batch {number} of data", item[0] if pair else item, shape, images)
            batch = {name: rows}
            if pair:
                given = as_contexts(item[1], len(rows), f"contexts of batch {number}")
                batch[_entry_of(given)] = given
            yield batch
            number += 1
        if number == start:
            raise ValueError(f"data must yield batches for all steps, ended after {number}")


# Model


def as_density(model: Any) -> Any:
    """The density of a flow; other models are left as they are."""
    is_flow = all(hasattr(model, name) for name in FLOW_ATTRIBUTES)
    return FlowModel(model) if is_flow and not isinstance(model, FlowModel) else model


def _standardized(model: Any, split: _Split, standardize: bool | None) -> tuple[nn.Module, str]:
    """The model of a flow, standardised if asked for, and what was done in words."""
    model = as_density(model)
    plain = isinstance(model, FlowModel) and not isinstance(model.flow, Wrapped)
    if standardize is None:
        standardize = plain and split.data == "vector" and split.batches is None
    if not standardize:
        return model, ""
    if not isinstance(model, FlowModel):
        raise ValueError(f"standardize must be False for a {type(model).__name__}, got True")
    if isinstance(model.flow, BoundedFlow):
        raise ValueError("standardize must be False for a BoundedFlow, which has its own interval")
    contexts = split.context == "context" and model.flow.context_ndims == 1
    flow = StandardizedFlow(model.flow, learned=False, context=contexts)
    what = "data and contexts are standardized" if contexts else "data are standardized"
    return model.clone(flow=flow), what


def _default_loss(model: Any) -> Loss:
    if isinstance(model, LatentVariableModel):
        return losses.elbo
    if isinstance(model, FlowModel) or all(hasattr(model, name) for name in FLOW_ATTRIBUTES):
        return losses.negative_log_likelihood
    raise ValueError(
        f"loss must be given for a {type(model).__name__}, got None; see vaeflow.losses"
    )


def _bound_loss(loss: Loss, split: _Split) -> Loss:
    """The loss of the entries that the batches have."""
    options = {}
    if getattr(loss, "func", loss) is losses.negative_log_likelihood:
        options["data"] = split.data
    if split.context is not None:
        options["context_key"] = split.context
    return functools.partial(loss, **options) if options else loss


def _name_of(loss: Loss) -> str:
    return getattr(getattr(loss, "func", loss), "__name__", type(loss).__name__).replace("_", " ")


def _initializer(
    model: nn.Module, split: _Split, batch_size: int, members: int, seed: int
) -> Callable[[], PyTree]:
    """Returns the function that initialises the model, or each member, by the first examples."""
    arrays = split.batches.first if split.batches else split.training
    limit = INITIAL_ROWS if split.data == "vector" else batch_size
    given = [arrays[split.data][:limit]]
    named = {} if split.context is None else {"context": arrays[split.context][:limit]}

    @jax.jit
    def create(key: jax.Array, given: PyTree, named: PyTree) -> PyTree:
        if members == 1:
            return model.init(key, *given, **named)
        keys = jax.random.split(key, members)
        return jax.vmap(lambda key: model.init(key, *given, **named))(keys)

    return lambda: create(jax.random.key(seed), given, named)


def _evaluation(
    model: nn.Module, loss: Loss, arrays: Mapping[str, np.ndarray], weights: Any, name: str
) -> Callable[[int, PyTree], dict[str, float]]:
    """Returns the mean loss and metrics of the examples to validate on, always by the same noise.

    They are evaluated in parts of one size, which leaves out less than a row for each part.
    """
    count = len(arrays[name])
    arrays = {**arrays, "index": np.arange(count, dtype=np.int32)}
    parts = -(-count // rows_at_once(arrays[name].shape[1:]))
    size = count // parts
    stacked = {
        key: jnp.asarray(array[: parts * size].reshape(parts, size, *array.shape[1:]))
        for key, array in arrays.items()
    }

    @jax.jit
    def evaluate(variables: PyTree, stacked: PyTree, step: jax.Array) -> PyTree:
        scheduled = {
            key: jnp.asarray(value(step) if callable(value) else value, jnp.float32)
            for key, value in (weights or {}).items()
        }

        def part(item: PyTree) -> PyTree:
            number, batch = item
            keys = row_keys(jax.random.fold_in(jax.random.key(0), number), size)
            value, aux = loss(model, variables, batch, keys, train=False, **scheduled)
            return {"loss": value, **aux.metrics}

        found = jax.lax.map(part, (jnp.arange(parts), stacked))
        return jax.tree.map(lambda value: jnp.mean(value, axis=0), found)

    def measure(step: int, variables: PyTree) -> dict[str, float]:
        found = jax.device_get(evaluate(variables, stacked, jnp.int32(step)))
        return {f"validation_{key}": float(value) for key, value in found.items()}

    return measure


class History:
    """A logger that keeps its records."""

    def __init__(self) -> None:
        self.records: list[dict[str, float]] = []
        self._start = time.monotonic()

    def opened(self, directory: Any, start_step: int) -> History:
        """Returns this logger, as training opens it."""
        del directory, start_step
        return self

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keeps the metrics of a step."""
        seconds = round(time.monotonic() - self._start, 3)
        self.records.append({"step": step, "wall_seconds": seconds, **metrics})

    def flush(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""
