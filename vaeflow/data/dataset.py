"""What a data set is: its three splits, and random access into each."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

if TYPE_CHECKING:
    from vaeflow.data.drawings import Drawings
    from vaeflow.data.sprites import Factors

Example = dict[str, np.ndarray]
Batch = dict[str, np.ndarray]
Read = Callable[[Int[np.ndarray, " batch"]], Batch]


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Random access into one split.

    ``source[i]`` is the example at position ``i``: ``image`` (uint8, shape [height, width,
    channel]), ``label`` and ``style`` (int32, absent where the data have none), or ``vector``
    (float32, shape [column]) for a row of a table; and ``index`` (int32), the example's number in
    the data set as a whole, which no other split shares.

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
        """Returns the examples at `positions` as one batch, each entry of shape [batch, ...]."""
        rows = self.rows[positions]
        return {**self.read(rows), "index": (rows + self.offset).astype(np.int32)}


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Images with their splits. Pixels are uint8 in 0..255.

    ``str(dataset)`` says shape, range and counts in one line.

    Attributes:
      name: The source string that it was opened with.
      shape: (height, width, channel) of every image.
      classes: Number of classes that ``label`` takes, or None where there are no labels.
      train: Examples to fit parameters on.
      validation: Examples to choose settings on.
      test: Examples to report figures on. No example is in two splits.
      factors: The ground truth of ``embedded:sprites``, else None.
      drawings: The ground truth of ``embedded:drawings``, else None.
      skipped: Names of files left out because they couldn't be read as images.
    """

    name: str
    shape: tuple[int, int, int]
    classes: int | None
    train: Source
    validation: Source
    test: Source
    factors: Factors | None = None
    drawings: Drawings | None = None
    skipped: tuple[str, ...] = ()

    @property
    def value_range(self) -> tuple[int, int]:
        """Smallest and largest value that a pixel may take."""
        return 0, 255

    def __str__(self) -> str:
        height, width, channel = self.shape
        low, high = self.value_range
        parts = [
            f"{self.name}: {height}x{width}x{channel}",
            f"uint8 {low}..{high}",
            _counts(self),
        ]
        if self.classes is not None:
            parts.append(f"{self.classes} classes")
        if self.skipped:
            parts.append(f"{len(self.skipped)} unreadable files skipped")
        return ", ".join(parts)


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Rows of real numbers with their splits, in the units of their file.

    ``str(table)`` says the number of columns and counts in one line.

    Attributes:
      name: The source string that it was opened with.
      columns: What to call the columns: numbers, counted from 0, where the file has no names.
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
        return f"{self.name}: {len(self.columns)} columns, {_counts(self)}"


def _counts(data: Dataset | Table) -> str:
    return " / ".join(
        f"{len(getattr(data, split))} {split}" for split in ("train", "validation", "test")
    )
