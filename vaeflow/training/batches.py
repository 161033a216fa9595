"""Batches as training takes them: streamed from the host, or gathered on the device."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, TypeVar

import jax
import numpy as np

from vaeflow import data

Item = TypeVar("Item")
Batch = dict[str, Any]

_END = object()


@dataclasses.dataclass(frozen=True)
class Batches:
    """The training batches of a run, a function of the seed and the step alone.

    Attributes:
      source: The training split.
      batch_size: Examples in a batch.
      seed: Seed of the order and of the flips.
      flip: Whether images are mirrored left to right at random.
    """

    source: data.Source
    batch_size: int
    seed: int
    flip: bool = False

    def stream(self, start_step: int, shard: int = 0, shards: int = 1) -> Iterator[Batch]:
        """Yields the batches of `start_step` and of the steps after it, for ever.

        Args:
          start_step: The step of the first batch.
          shard: Which part of each batch to yield: the number of this host.
          shards: Number of equal parts, one after the other, of a batch: the number of hosts.
        """
        return self._of(self.source, start_step, shard, shards)

    def examples(self) -> Batch:
        """Every example of the split, to be kept on the device."""
        return data.stack(self.source)

    def plan(self, start_step: int, shard: int = 0, shards: int = 1) -> Iterator[Batch]:
        """Yields which examples make the batches that `stream` would yield; arguments as there.

        Yields:
          "index", int32 [batch], rows of `examples`; and "flip", bool [batch], whether each image
          is mirrored.
        """
        for batch in self._of(_Marks(len(self.source)), start_step, shard, shards):
            yield {"index": batch["index"], "flip": batch["image"][:, 0, 0, 0] == 1}

    def _of(self, source: Any, start_step: int, shard: int, shards: int) -> Iterator[Batch]:
        return data.training_batches(
            source,
            self.batch_size,
            self.seed,
            start_step=start_step,
            flip=self.flip,
            shard=shard,
            shards=shards,
        )


@dataclasses.dataclass(frozen=True)
class UnpairedBatches:
    """Batches of two domains, ``{"a": {"image": ..., ...}, "b": ...}``, in independent orders.

    What stands in one row of both has nothing to do with each other, even where the two splits hold
    the same examples in the same order.

    Attributes:
      a: The training split of domain a.
      b: That of domain b.
      batch_size: Examples of each domain in a batch.
      seed: Seed of the orders and of the flips.
      flip: Whether images of both are mirrored left to right at random.
    """

    a: data.Source
    b: data.Source
    batch_size: int
    seed: int
    flip: bool = False

    def stream(self, start_step: int, shard: int = 0, shards: int = 1) -> Iterator[Batch]:
        """Yields batches as `Batches.stream` does, by domain; arguments as there."""
        return _by_domain(*(own.stream(start_step, shard, shards) for own in self._each()))

    def examples(self) -> Batch:
        """Every example of both splits, by domain."""
        a, b = (own.examples() for own in self._each())
        return {"a": a, "b": b}

    def plan(self, start_step: int, shard: int = 0, shards: int = 1) -> Iterator[Batch]:
        """Yields plans as `Batches.plan` does, by domain; arguments as there."""
        return _by_domain(*(own.plan(start_step, shard, shards) for own in self._each()))

    def _each(self) -> tuple[Batches, Batches]:
        # One seed for both would put examples of equal numbers side by side in every epoch.
        apart = np.random.SeedSequence(self.seed).generate_state(2)
        first, second = (
            Batches(source, self.batch_size, int(seed), self.flip)
            for source, seed in zip((self.a, self.b), apart, strict=True)
        )
        return first, second


def _by_domain(first: Iterator[Batch], second: Iterator[Batch]) -> Iterator[Batch]:
    return ({"a": a, "b": b} for a, b in zip(first, second, strict=True))


@dataclasses.dataclass(frozen=True)
class IndexBatches:
    """Batches of row numbers alone, for losses that draw their own examples.

    Attributes:
      batch_size: Rows in a batch.
    """

    batch_size: int

    def stream(self, start_step: int, shard: int = 0, shards: int = 1) -> Iterator[Batch]:
        """Yields "index", int32 [rows], the same at every step; arguments as for `Batches`."""
        del start_step
        rows = self.batch_size // shards
        index = np.arange(shard * rows, (shard + 1) * rows, dtype=np.int32)
        return itertools.repeat({"index": index})

    def examples(self) -> Batch:
        """The number of each row."""
        return {"index": np.arange(self.batch_size, dtype=np.int32)}

    def plan(self, start_step: int, shard: int = 0, shards: int = 1) -> Iterator[Batch]:
        """Yields what `Batches.plan` would; arguments as there."""
        for batch in self.stream(start_step, shard, shards):
            yield {"index": batch["index"], "flip": np.zeros(len(batch["index"]), bool)}


@dataclasses.dataclass(frozen=True)
class _Marks:
    """Images of two pixels, 0 and 1, sent through the pipeline to see what it does to an image."""

    count: int

    def __len__(self) -> int:
        return self.count

    def gather(self, rows: np.ndarray) -> Batch:
        image = np.tile(np.array([0, 1], np.uint8).reshape(1, 1, 2, 1), (len(rows), 1, 1, 1))
        return {"image": image, "index": rows.astype(np.int32)}


def prefetch(items: Iterator[Item], ahead: int = 2) -> Iterator[Item]:
    """Draws from an iterator on a thread, a few items ahead of the consumer.

    Args:
      items: What to draw from; its errors are raised where the item would have come.
      ahead: Number of items drawn in advance.

    Yields:
      The same items in the same order.
    """
    with concurrent.futures.ThreadPoolExecutor(1, "prefetch") as pool:
        drawn = collections.deque(pool.submit(next, items, _END) for _ in range(ahead))
        while (item := drawn.popleft().result()) is not _END:
            drawn.append(pool.submit(next, items, _END))
            yield item


def groups(plan: Iterator[Batch], sizes: Iterator[int], length: int) -> Iterator[tuple[int, Batch]]:
    """Stacks plans into groups of the given sizes, each filled up to `length` with its first.

    Args:
      plan: Plans of single batches.
      sizes: Number of batches in each group, at most `length`.
      length: Rows of every group, so that all have the same shape.

    Yields:
      The size, and what a plan is made of, arrays of shape [length, batch].
    """
    for size in sizes:
        drawn = [next(plan) for _ in range(size)]
        drawn += [drawn[0]] * (length - size)
        yield size, jax.tree.map(lambda *rows: np.stack(rows), *drawn)
