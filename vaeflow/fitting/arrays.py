"""Training data in memory: arrays of any library, in the types and shapes that a model takes."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from vaeflow._util.messages import shown

Batch = dict[str, np.ndarray]


def as_numpy(name: str, value: Any) -> np.ndarray:
    """Converts an array, a tensor, a frame or nested lists to a NumPy array of numbers.

    Anything with `__array__` will do: arrays of NumPy and JAX, frames of pandas and Polars, tensors
    of PyTorch on the CPU. Reals are float32, or float64 where JAX's x64 is on and they are given
    so; integers keep their type.

    Args:
      name: Name of the argument, for errors.
      value: The array.

    Raises:
      ValueError: If it isn't one of numbers, or holds masked ones.
    """
    if hasattr(value, "detach"):  # tensors that need gradients can't be arrays
        value = value.detach()
    if np.ma.isMaskedArray(value) and np.ma.is_masked(value):
        raise ValueError(f"{name} must not have masked entries: fill them, or leave out their rows")
    try:
        array = np.asarray(value)
    except Exception as error:
        raise ValueError(
            f"{name} must be an array, got a {type(value).__name__}: {error}"
        ) from error
    if array.dtype == object:
        raise ValueError(f"{name} must hold numbers alone, got {_not_numbers(value)}")
    if array.dtype == bool:
        return array.astype(np.int32)
    if np.issubdtype(array.dtype, np.integer):
        return array
    if array.dtype.kind not in "fV" or not np.can_cast(array.dtype, np.float64):
        raise ValueError(f"{name} must hold numbers, got {array.dtype}")
    wide = array.dtype == np.float64 and jax.dtypes.canonicalize_dtype(np.float64) == np.float64
    return array if wide else array.astype(np.float32)


def _not_numbers(value: Any) -> str:
    """The columns of a frame that don't hold numbers, or the type of anything else."""
    if hasattr(value, "columns"):
        kinds = {str(name): np.asarray(value[name]).dtype.kind for name in value.columns}
        return shown(
            f"the columns {', '.join(n for n, kind in kinds.items() if kind in 'OSU')}", 120
        )
    return f"a {type(value).__name__} of objects"


def as_examples(name: str, value: Any, event_shape: tuple[int, ...], integers: bool) -> np.ndarray:
    """Converts data to an array ``[example, *event]``.

    Args:
      name: Name of the argument, for errors.
      value: See `as_numpy`. A vector of numbers holds examples of one dimension.
      event_shape: Shape of an example.
      integers: Whether the model takes uint8 images; else integers become reals.

    Raises:
      ValueError: If type, shape or a number doesn't fit; a number that isn't finite is named by its
        row and column.
    """
    array = as_numpy(name, value)
    if array.ndim == 1 and event_shape == (1,):
        array = array[:, None]
    if array.ndim != 1 + len(event_shape) or array.shape[1:] != event_shape:
        raise ValueError(
            f"{name} must have shape [example, {', '.join(map(str, event_shape))}], "
            f"got {array.shape}"
        )
    if integers:
        if array.dtype != np.uint8:
            raise ValueError(f"{name} must be uint8 images, got {array.dtype}")
        return array
    if np.issubdtype(array.dtype, np.integer):
        array = array.astype(np.float32)
    check_finite_rows(name, array)
    return array


def as_contexts(value: Any, count: int, name: str = "context") -> np.ndarray:
    """Converts conditions of examples to labels ``[example]`` or reals ``[example, *context]``.

    Raises:
      ValueError: If there isn't one for each example, or a number isn't finite.
    """
    array = as_numpy(name, value)
    if array.ndim == 0 or len(array) != count:
        raise ValueError(
            f"{name} must have a row for each of the {count} examples, got shape {array.shape}"
        )
    if np.issubdtype(array.dtype, np.integer):
        return array.astype(np.int32) if array.ndim == 1 else array.astype(np.float32)
    if array.ndim == 1:
        array = array[:, None]
    check_finite_rows(name, array)
    return array


def check_finite_rows(name: str, array: np.ndarray) -> None:
    """Raises a `ValueError` that names the first row and column of a number that isn't finite."""
    finite = np.isfinite(array)
    if not finite.all():
        row, *column = np.argwhere(~finite)[0].tolist()
        place = column[0] if len(column) == 1 else tuple(column)
        bad = int((~finite.reshape(len(array), -1).all(1)).sum())
        raise ValueError(
            f"{name} must be finite, got {array[(row, *column)]} in row {row}, column {place}; "
            f"{bad} of {len(array)} rows aren't"
        )


@dataclasses.dataclass(frozen=True)
class ArrayBatches:
    """Shuffled batches of arrays in memory; methods as `vaeflow.training.batches.BatchSource`.

    The rows are an endless stream of epochs, each a permutation: a function of the seed and the
    step alone.

    Attributes:
      arrays: By name, each ``[example, ...]``.
      batch_size: Examples in a batch.
      seed: Seed of the order.
    """

    arrays: Mapping[str, np.ndarray]
    batch_size: int
    seed: int

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def stream(self, start_step: int, shard: int = 0, shards: int = 1) -> Iterator[Batch]:
        """Yields batches of the arrays, with their "index"."""
        for plan in self.plan(start_step, shard, shards):
            rows = plan["index"]
            yield {**{name: array[rows] for name, array in self.arrays.items()}, "index": rows}

    def examples(self) -> Batch:
        """The arrays, and the "index" of each example."""
        return {**self.arrays, "index": np.arange(len(self), dtype=np.int32)}

    def plan(self, start_step: int, shard: int = 0, shards: int = 1) -> Iterator[Batch]:
        """Yields rows of the examples, never flipped."""
        order = functools.lru_cache(maxsize=2)(self._order)
        rows = self.batch_size // shards
        step = start_step
        while True:
            first = step * self.batch_size + shard * rows
            positions = np.arange(first, first + rows)
            epochs = positions // len(self)
            index = np.concatenate(
                [
                    order(epoch)[positions[epochs == epoch] % len(self)]
                    for epoch in np.unique(epochs)
                ]
            )
            yield {"index": index, "flip": np.zeros(rows, bool)}
            step += 1

    def _order(self, epoch: int) -> np.ndarray:
        generator = np.random.default_rng([self.seed, int(epoch)])
        return generator.permutation(len(self)).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class IterableBatches:
    """Batches as they come; methods as `vaeflow.training.batches.BatchSource`.

    They are streamed: there are no `examples` and no `plan` of them, nor a second pass.

    Attributes:
      first: The first batch, arrays by name.
      others: Those after it.
    """

    first: Batch
    others: Iterator[Batch]

    def stream(self, start_step: int, shard: int = 0, shards: int = 1) -> Iterator[Batch]:
        """Yields this host's part of each batch, with the "index" of each example."""
        batches = itertools.islice(itertools.chain([self.first], self.others), start_step, None)
        for batch in batches:
            rows = len(next(iter(batch.values()))) // shards
            part = slice(shard * rows, (shard + 1) * rows)
            own = {name: array[part] for name, array in batch.items()}
            yield {**own, "index": np.arange(part.start, part.stop, dtype=np.int32)}


# Models


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
