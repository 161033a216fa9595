"""What a data set is: its shape, its three splits, and random access into each."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int, UInt8

if TYPE_CHECKING:
    from vaeflow.data.sprites import Factors

Example = dict[str, np.ndarray]
Batch = dict[str, np.ndarray]
Read = Callable[
    [Int[np.ndarray, " batch"]],
    tuple[UInt8[np.ndarray, "batch height width channel"], Int[np.ndarray, " batch"] | None],
]


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Random access into one split.

    ``source[i]`` is the example at position ``i``: ``image`` (uint8, shape [height, width,
    channel]), ``label`` (int32, absent where the data have none) and ``index`` (int32), the
    example's number in the data set as a whole, which no other split shares.

    Attributes:
      read: Returns the images and the labels (or None) of the given rows.
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
        images, labels = self.read(rows)
        batch = {"image": images, "index": (rows + self.offset).astype(np.int32)}
        if labels is not None:
            batch["label"] = labels.astype(np.int32)
        return batch


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
      skipped: Names of files left out because they couldn't be read as images.
    """

    name: str
    shape: tuple[int, int, int]
    classes: int | None
    train: Source
    validation: Source
    test: Source
    factors: Factors | None = None
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
            f"{len(self.train)} train / {len(self.validation)} validation / {len(self.test)} test",
        ]
        if self.classes is not None:
            parts.append(f"{self.classes} classes")
        if self.skipped:
            parts.append(f"{len(self.skipped)} unreadable files skipped")
        return ", ".join(parts)
