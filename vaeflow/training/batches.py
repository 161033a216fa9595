"""Batches of a training run: streamed from the host, or gathered on the device by a plan.

`Batches` shuffles a split, `UnpairedBatches` two splits independently, and `IndexBatches` numbers
rows for losses that sample their data. Each is a function of the seed and the step alone, which
makes resuming exact.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

import jax
import numpy as np

from vaeflow import data
from vaeflow.data.batches import training_rows

Item = TypeVar("Item")
Batch = dict[str, Any]

_END = object()


class BatchSource(Protocol):
    """Interface of the batches that `train` trains on."""

    def stream(self, start_step: int, shard: int = 0, shards: int = 1) -> Iterator[Batch]:
        """Yields the batches of `start_step` and of the steps after it, for ever.

        Args:
          start_step: The step of the first batch.
          shard: Which part of each batch to yield: the number of this host.
          shards: Number of equal parts, one after the other, of a batch: the number of hosts.
        """

    def examples(self) -> Batch:
        """Every example, to be kept on the device."""

    def plan(self, start_step: int, shard: int = 0, shards: int = 1) -> Iterator[Batch]:
        """Yields which of the `examples` make the batches of `stream`; arguments as there.

        Yields:
          "index", int32 [batch], rows of `examples`; and "flip", bool [batch], whether each image
          is mirrored; or both by domain.
        """


@dataclasses.dataclass(frozen=True)
class Batches:
    """Shuffled batches of a split. Methods: see `BatchSource`.

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
        """Yields batches of the split."""
        order = self._order(start_step, shard, shards)
        return data.training_batches(self.source, self.batch_size, self.seed, **order)

    def examples(self) -> Batch:
        """The split."""
        return data.stack(self.source)

    def plan(self, start_step: int, shard: int = 0, shards: int = 1) -> Iterator[Batch]:
        """Yields rows of the split and flips."""
        order = self._order(start_step, shard, shards)
        return training_rows(len(self.source), self.batch_size, self.seed, **order)

    def _order(self, start_step: int, shard: int, shards: int) -> dict[str, Any]:
        return {"start_step": start_step, "flip": self.flip, "shard": shard, "shards": shards}


@dataclasses.dataclass(frozen=True)
class UnpairedBatches:
    """Batches of two domains, ``{"a": {"image": ..., ...}, "b": ...}``, in independent orders.

    Equal rows of the two domains are unrelated, even where both splits hold the same examples in
    the same order. Methods: see `BatchSource`.

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
        """Yields batches of both splits, by domain."""
        return _zip_domains(
            {
                domain: batches.stream(start_step, shard, shards)
                for domain, batches in self._domains().items()
            }
        )

    def examples(self) -> Batch:
        """Both splits, by domain."""
        return {domain: batches.examples() for domain, batches in self._domains().items()}

    def plan(self, start_step: int, shard: int = 0, shards: int = 1) -> Iterator[Batch]:
        """Yields plans of both splits, by domain."""
        return _zip_domains(
            {
                domain: batches.plan(start_step, shard, shards)
                for domain, batches in self._domains().items()
            }
        )

    def _domains(self) -> dict[str, Batches]:
        # With one seed for both, examples of equal numbers would meet in every epoch.
        seed_a, seed_b = np.random.SeedSequence(self.seed).generate_state(2)
        return {
            "a": Batches(self.a, self.batch_size, int(seed_a), self.flip),
            "b": Batches(self.b, self.batch_size, int(seed_b), self.flip),
        }


def _zip_domains(streams: dict[str, Iterator[Batch]]) -> Iterator[Batch]:
    return (
        dict(zip(streams, batches, strict=True)) for batches in zip(*streams.values(), strict=True)
    )


@dataclasses.dataclass(frozen=True)
class IndexBatches:
    """Batches of row numbers alone, the same at every step, for losses that sample their data.

    Methods: see `BatchSource`.

    Attributes:
      batch_size: Rows in a batch.
    """

    batch_size: int

    def stream(self, start_step: int, shard: int = 0, shards: int = 1) -> Iterator[Batch]:
        """Yields "index", int32 [rows]."""
        del start_step
        rows = self.batch_size // shards
        index = np.arange(shard * rows, (shard + 1) * rows, dtype=np.int32)
        return itertools.repeat({"index": index})

    def examples(self) -> Batch:
        """The number of each row."""
        return {"index": np.arange(self.batch_size, dtype=np.int32)}

    def plan(self, start_step: int, shard: int = 0, shards: int = 1) -> Iterator[Batch]:
        """Yields the rows of `stream`, not flipped."""
        for batch in self.stream(start_step, shard, shards):
            yield {**batch, "flip": np.zeros(len(batch["index"]), bool)}


def prefetch(items: Iterator[Item], ahead: int = 2) -> Iterator[Item]:
    """Reads an iterator on a thread, a few items ahead of the consumer.

    Args:
      items: The iterator; its errors are raised where the item would have come.
      ahead: Number of items read in advance.

    Yields:
      The same items in the same order.
    """
    with concurrent.futures.ThreadPoolExecutor(1, "prefetch") as pool:
        queue = collections.deque(pool.submit(next, items, _END) for _ in range(ahead))
        while (item := queue.popleft().result()) is not _END:
            queue.append(pool.submit(next, items, _END))
            yield item


def groups(plan: Iterator[Batch], sizes: Iterator[int], length: int) -> Iterator[tuple[int, Batch]]:
    """Stacks plans into groups of the given sizes, each padded to `length` with its first plan.

    Args:
      plan: Plans of single batches.
      sizes: Number of batches in each group, at most `length`.
      length: Number of plans in every group, so that all have the same shape.

    Yields:
      The size, and the stacked plan, arrays of shape [length, batch].
    """
    for size in sizes:
        plans = [next(plan) for _ in range(size)]
        plans += [plans[0]] * (length - size)
        yield size, jax.tree.map(lambda *rows: np.stack(rows), *plans)
