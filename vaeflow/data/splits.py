"""Splits that never overlap: the data's own, else carved by a fixed permutation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

from vaeflow.data.dataset import Read, Source

FOLDS = 10
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """Examples that belong together in the data as they come.

    Attributes:
      read: Returns the given rows as a batch without ``index``.
      count: Number of rows.
    """

    read: Read
    count: int


def make_splits(parts: Mapping[str, Part], fold: int, *, name: str) -> dict[str, Source]:
    """Makes the three splits out of the one, two or three that the data come with.

    A fixed permutation of the training part is cut into ten blocks. Where validation and test are
    both missing, fold f tests on block f, validates on block f + 1 (cyclically) and trains on the
    other eight, so the test sets of folds 0 to 9 tile the data. Where one is missing, it is block
    f and the other nine are for training. What the data come with stays as it is, in its order.

    Args:
      parts: "train", and where the data have them "validation" and "test".
      fold: Which of the ten folds, 0 to 9.
      name: The source string, for error messages.

    Returns:
      A source for each of "train", "validation" and "test".

    Raises:
      ValueError: `fold` is out of range, or isn't 0 though nothing is carved, or the training
        part has fewer than ten examples to carve from.
    """
    if not 0 <= fold < FOLDS:
        raise ValueError(f"fold={fold}: allowed are 0 to {FOLDS - 1}")
    missing = [split for split in SPLITS if split not in parts]
    if not missing and fold:
        raise ValueError(f"fold={fold}: {name} comes with all its splits, so only 0 is allowed")
    rows = {split: np.arange(part.count) for split, part in parts.items()}
    if missing:
        blocks = _blocks(parts["train"].count, name)
        blocks = blocks[fold:] + blocks[:fold]
        # Test before validation, so that fold f tests on block f.
        for split, block in zip(sorted(missing), blocks[: len(missing)], strict=True):
            rows[split] = block
        rows["train"] = np.concatenate(blocks[len(missing) :])
    for split in SPLITS:
        if not len(rows[split]):
            raise ValueError(f"source={name!r}: its {split} split is empty")

    offsets, total = {}, 0
    for split, part in parts.items():
        offsets[split] = total
        total += part.count
    owner = {split: split if split in parts else "train" for split in SPLITS}
    return {
        split: Source(parts[owner[split]].read, rows[split], offsets[owner[split]])
        for split in SPLITS
    }


def _blocks(count: int, name: str) -> list[Int[np.ndarray, " block"]]:
    if count < FOLDS:
        raise ValueError(
            f"source={name!r}: {count} training examples are too few to carve held-out splits"
            f" from; at least {FOLDS} are needed"
        )
    # RandomState's stream is frozen for ever; Generator's may change between NumPy releases, and
    # with it what was held out.
    return np.array_split(np.random.RandomState(0).permutation(count), FOLDS)
