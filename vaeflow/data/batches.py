"""Batches: endless and shuffled for training, one ordered pass for evaluation, or all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from vaeflow._util.files import missing_package
from vaeflow.data.dataset import Batch, Source

_READERS = 8
_BATCHES_AHEAD = 16


def training_batches(
    source: Source,
    batch_size: int,
    seed: int,
    *,
    start_step: int = 0,
    flip: bool = False,
    shard: int = 0,
    shards: int = 1,
) -> Iterator[Batch]:
    """Yields shuffled batches endlessly.

    Row j of the global batch of step t is row ``t * batch_size + j`` of an endless stream of
    epochs, each a permutation of the split. That row and its flip depend on `seed` and on its
    number alone: a run resumes at any step with nothing but the step's number, on any number of
    hosts, and the shards' batches, put one after the other, are the global batch.

    Args:
      source: The split to read.
      batch_size: Rows of the global batch, over all shards.
      seed: Decides order and flips; at least 0.
      start_step: The step of the first batch yielded.
      flip: Mirrors each image left to right with probability one half, independently in each epoch.
      shard: Which part of each global batch to yield, 0 to ``shards - 1``; a host's number.
      shards: Number of equal parts that each global batch is divided into; the number of hosts.

    Yields:
      A dictionary of ``image`` (uint8, shape [batch, height, width, channel]), ``index`` (int32,
      shape [batch]) and, where the data have labels, ``label`` (int32, shape [batch]), where
      batch is ``batch_size / shards``.

    Raises:
      ValueError: An argument is out of range, or the split has fewer examples than a batch.
    """
    return _shuffled(
        lambda rows, flipped: _read(source, rows, flipped),
        len(source),
        batch_size,
        seed,
        start_step,
        flip,
        shard,
        shards,
    )


def training_rows(
    count: int,
    batch_size: int,
    seed: int,
    *,
    start_step: int = 0,
    flip: bool = False,
    shard: int = 0,
    shards: int = 1,
) -> Iterator[Batch]:
    """Yields the rows and flips of the batches of `training_batches`, without reading them.

    Args:
      count: Number of examples in the split.
      batch_size: See `training_batches`, as the other arguments.
      seed: See `training_batches`.
      start_step: See `training_batches`.
      flip: See `training_batches`.
      shard: See `training_batches`.
      shards: See `training_batches`.

    Yields:
      A dictionary of ``index`` (int32, shape [batch]), rows of the split, and ``flip`` (bool, shape
      [batch]), whether each image is mirrored.

    Raises:
      ValueError: As `training_batches`.
    """
    return _shuffled(
        lambda rows, flipped: {"index": rows.astype(np.int32), "flip": flipped},
        count,
        batch_size,
        seed,
        start_step,
        flip,
        shard,
        shards,
    )


def _shuffled(
    read: Callable[[np.ndarray, np.ndarray], Batch],
    count: int,
    batch_size: int,
    seed: int,
    start_step: int,
    flip: bool,
    shard: int,
    shards: int,
) -> Iterator[Batch]:
    """Yields `read(rows, flipped)` for every batch of the endless stream of epochs."""
    _check_batch_size(batch_size)
    if batch_size > count:
        raise ValueError(
            f"batch_size must be from 1 to {count}, the number of examples of the split, got"
            f" {batch_size}"
        )
    if shards < 1 or batch_size % shards:
        raise ValueError(f"shards must divide batch_size={batch_size}, got {shards}")
    if not 0 <= shard < shards:
        raise ValueError(f"shard must be from 0 to {shards - 1}, got {shard}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    if start_step < 0:
        raise ValueError(f"start_step must be at least 0, got {start_step}")
    try:
        import grain
    except ImportError as error:
        raise missing_package("training_batches", "grain") from error

    # Positions travel through the pipeline, not examples: a batch is then read in one go, which
    # for arrays in memory is a single numpy gather.
    positions = grain.MapDataset.range(count).seed(seed).shuffle().repeat()
    if flip:
        positions = positions.random_map(_flip_some)
    rows = batch_size // shards
    # Part k of the stream holds rows k * rows to (k + 1) * rows - 1, and step t's global batch is
    # parts t * shards to (t + 1) * shards - 1. Cut any earlier, the order would depend on shards.
    parts = positions.batch(rows, batch_fn=np.array)[shard::shards]
    # A flipped position is negative, see `_flip_some`.
    batches = parts.map(
        lambda part: read(np.where(part < 0, ~part, part), part < 0)
    ).to_iter_dataset(grain.ReadOptions(num_threads=_READERS, prefetch_buffer_size=_BATCHES_AHEAD))
    iterator = iter(batches)
    iterator.set_state({"next_index": start_step})
    return iterator


def _flip_some(position: int, rng: np.random.Generator) -> int:
    """Marks a position as flipped by its complement, which is negative."""
    return ~position if rng.random() < 0.5 else position


def _read(source: Source, rows: np.ndarray, flipped: np.ndarray) -> Batch:
    batch = source.gather(rows)
    if flipped.any():
        images = batch["image"].copy()
        images[flipped] = images[flipped, :, ::-1]
        batch["image"] = images
    return batch


def epoch_batches(source: Source, batch_size: int) -> Iterator[Batch]:
    """Yields the split once, in order; the last batch may be shorter.

    Args:
      source: The split to read.
      batch_size: Rows of each batch but the last.

    Yields:
      Dictionaries as `training_batches` yields them, never flipped.

    Raises:
      ValueError: `batch_size` is less than 1.
    """
    _check_batch_size(batch_size)
    return (
        source.gather(np.arange(start, min(start + batch_size, len(source))))
        for start in range(0, len(source), batch_size)
    )


def stack(source: Source, limit: int | None = None) -> Batch:
    """Returns the split, or its first `limit` examples, as one batch of arrays in memory.

    Raises:
      ValueError: `limit` is less than 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be None or at least 1, got {limit}")
    count = len(source) if limit is None else min(limit, len(source))
    return source.gather(np.arange(count))


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
