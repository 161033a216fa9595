"""`Dataset` and `Table`, their splits (`Source`), and the construction of splits from arrays."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from jaxtyping import Int, UInt8

from vaeflow._util.messages import shown

Example = dict[str, np.ndarray]

Batch = dict[str, np.ndarray]

Read = Callable[[Int[np.ndarray, " batch"]], Batch]


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Random access into one split.

    ``source[i]`` is the example at position ``i``: ``image`` (uint8, shape [height, width,
    channel]), ``label`` and ``style`` (int32, absent where the data have none), or ``vector``
    (float32, shape [column]) for a row of a table; and ``index`` (int32), the example's number in
    the full data set, which no other split shares.

    Attributes:
      read: Returns the given rows as a batch without ``index``.
      rows: The rows, as `read` counts them, that make up this split, in its order.
      offset: What is added to a row to make its ``index``.
    """

    read: Read
    rows: Int[np.ndarray, " count"]
    offset: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> Example:
        position = operator.index(position)
        if not -len(self) <= position < len(self):
            raise IndexError(f"position {position} of a split of {len(self)} examples")
        return {name: rows[0] for name, rows in self.gather(np.array([position])).items()}

    def gather(self, positions: Int[np.ndarray, " batch"]) -> Batch:
        """Returns the examples at `positions` as one batch, each array of shape [batch, ...]."""
        rows = self.rows[positions]
        return {**self.read(rows), "index": (rows + self.offset).astype(np.int32)}


class GroundTruth(Protocol):
    """The factors of variation that a synthetic data set is rendered from.

    Each synthetic source has its class, which defines the encoding of its factors:
    `vaeflow.data.Sprites` and `vaeflow.data.ColoredDigits`.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the factors."""

    @property
    def render(self) -> Callable[..., UInt8[np.ndarray, "batch height width channel"]]:
        """The method that renders images of given factors."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Images with their splits. Pixels are uint8 in 0..255.

    ``str(dataset)`` says shape, range and counts in one line.

    Attributes:
      name: The source string that it was opened with.
      shape: (height, width, channel) of every image.
      num_classes: Number of classes that ``label`` takes, or None where there are no labels.
      train: Examples to fit parameters on.
      validation: Examples to choose settings on.
      test: Examples to report figures on. No example is in two splits.
      truth: The ground truth of a synthetic source (`vaeflow.data.Sprites` of
        ``embedded:sprites``, `vaeflow.data.ColoredDigits` of ``embedded:drawings``), else None.
      skipped: Names of files left out because they couldn't be read as images.
    """

    name: str
    shape: tuple[int, int, int]
    num_classes: int | None
    train: Source
    validation: Source
    test: Source
    truth: GroundTruth | None = None
    skipped: tuple[str, ...] = ()

    @property
    def value_range(self) -> tuple[int, int]:
        """Smallest and largest value that a pixel may take."""
        return 0, 255

    def __str__(self) -> str:
        height, width, channel = self.shape
        low, high = self.value_range
        parts = [
            f"{shown(self.name)}: {height}x{width}x{channel}",
            f"uint8 {low}..{high}",
            _counts(self),
        ]
        if self.num_classes is not None:
            parts.append(f"{self.num_classes} classes")
        if self.skipped:
            parts.append(f"{len(self.skipped)} unreadable files skipped")
        return ", ".join(parts)


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Rows of real numbers with their splits, in the units of their file.

    ``str(table)`` says the number of columns and counts in one line.

    Attributes:
      name: The source string that it was opened with.
      columns: Names of the columns: numbers, counted from 0, where the file has no names.
      train: Rows to fit parameters on.
      validation: Rows to choose settings on.
      test: Rows to report figures on. No row is in two splits.
    """

    name: str
    columns: tuple[str, ...]
    train: Source
    validation: Source
    test: Source

    @property
    def shape(self) -> tuple[int]:
        """(column,), the shape of every row."""
        return (len(self.columns),)

    def __str__(self) -> str:
        return f"{shown(self.name)}: {len(self.columns)} columns, {_counts(self)}"


def _counts(data: Dataset | Table) -> str:
    return " / ".join(
        f"{len(getattr(data, split))} {split}" for split in ("train", "validation", "test")
    )


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
        raise ValueError(f"fold must be from 0 to {FOLDS - 1}, got {fold}")
    missing = [split for split in SPLITS if split not in parts]
    if not missing and fold:
        raise ValueError(
            f"fold must be 0 for {shown(name)}, which comes with all its splits, got {fold}"
        )
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
            raise ValueError(f"source='{shown(name)}': its {split} split is empty")

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
            f"source='{shown(name)}': {count} training examples are too few to carve held-out"
            f" splits from; at least {FOLDS} are needed"
        )
    # RandomState's stream is frozen for ever; Generator's may change between NumPy releases, and
    # with it what was held out.
    return np.array_split(np.random.RandomState(0).permutation(count), FOLDS)


def array_part(
    images: UInt8[np.ndarray, "count height width channel"],
    labels: Int[np.ndarray, " count"] | None = None,
) -> Part:
    """Wraps images, and labels where there are any, for random access."""
    arrays = {"image": images}
    if labels is not None:
        arrays["label"] = labels.astype(np.int32)
    return arrays_part(arrays)


def arrays_part(arrays: dict[str, np.ndarray]) -> Part:
    """Wraps arrays by what a batch calls them, each with an example a row, for random access."""
    count = len(next(iter(arrays.values())))
    return Part(lambda rows: {name: array[rows] for name, array in arrays.items()}, count)
