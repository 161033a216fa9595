"""Programs and their cases: one generator for flows, bases and distributions, seeded by names.

Compilation is the cost: the cases of a program share one compiled function, and differ in unit,
offset, spread and seed alone.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

LARGEST_EXPONENT = 100
"""Units are powers of two, so that data of every unit are rounded alike: up to 1.3e30."""

OFFSETS = (0.0, 3.0, 100.0)
"""Means of data, in deviations."""

SPREADS = (1.0, 30.0, 1e4)
"""Deviations of the values at which densities are taken, in those of the data."""

DTYPES = ("float32", "float32", "bfloat16")

MEMBERS = (0, 0, 0, 3)
"""Numbers of members of an ensemble; 0 for none."""

DIMENSIONS = (1, 2, 3, 7, 20, 200)

ALONE = (((5,), None), ((), None), ((2, 3), None), ((0,), None))
"""Batch axes of the values, for subjects without contexts or batches of their own."""

TOGETHER = (
    ((5,), (5,)),
    ((2, 3), (3,)),
    ((), (4,)),
    ((3, 1), (4,)),
    ((2, 3), ()),
    ((0,), (0,)),
    ((2, 0), (0,)),
)
"""Batch axes of the values, and of the contexts or distributions."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """A public class under test, with its options.

    Attributes:
      public: The name of the class.
      variant: The options that set it apart from other subjects of the class.
      make: Makes the module, or the distribution, of a number of dimensions.
      dimensions: Numbers of dimensions.
      layouts: Batch axes of the values, and of the contexts or distributions.
      follows: Whether densities and samples follow the unit of the data.
      values: Values that an entry may have, where they are discrete.
      sampled: Type of the samples, where it doesn't follow that of the values; densities are of
        float32 then.
      costly: Whether each case in the largest dimension takes seconds: few will do.
      options: Else that its oracle needs to know, by name.
    """

    public: str
    variant: str
    make: Callable[..., Any]
    dimensions: Sequence[int] = DIMENSIONS
    layouts: Sequence[tuple[tuple[int, ...], tuple[int, ...] | None]] = ALONE
    follows: bool = True
    values: tuple[float, ...] = ()
    sampled: str | None = None
    costly: bool = False
    options: Any = None

    @property
    def name(self) -> str:
        """Name for the ids of tests."""
        return f"{self.public}-{self.variant}" if self.variant else self.public


class Case(NamedTuple):
    """Numbers in which the cases of a program differ."""

    exponent: int
    offset: float
    spread: float
    seed: int


@dataclasses.dataclass(frozen=True)
class Program:
    """Shapes and types in which a subject is compiled once.

    Attributes:
      subject: The class.
      dimension: Number of dimensions of an event.
      batch: Batch axes of the values.
      context: Batch axes of the context or of the distribution, or None.
      dtype: Type of the data.
      members: Number of members of an ensemble that is compiled too; 0 for none.
      num_cases: Number of cases.
    """

    subject: Subject
    dimension: int
    batch: tuple[int, ...]
    context: tuple[int, ...] | None
    dtype: str
    members: int
    num_cases: int

    @property
    def name(self) -> str:
        """Name for the ids of tests."""
        parts = [self.subject.name, str(self.dimension), _axes("x", self.batch)]
        parts += [_axes("c", self.context)] if self.context is not None else []
        parts += [self.dtype] + ([f"{self.members} members"] if self.members else [])
        return " ".join(parts)

    @property
    def result(self) -> tuple[int, ...]:
        """Batch axes of the densities."""
        return np.broadcast_shapes(self.batch, self.context or ())

    def cases(self) -> Iterator[Case]:
        """Yields the cases: both extreme units first."""
        random = np.random.default_rng(zlib.crc32(self.name.encode()))
        for index in range(self.num_cases):
            exponent = int(random.integers(-LARGEST_EXPONENT, LARGEST_EXPONENT + 1))
            if index < 2:
                exponent = LARGEST_EXPONENT * (2 * index - 1)
            offset, spread = random.choice(OFFSETS), random.choice(SPREADS)
            # Few seeds, as each is computed in the unit of one too.
            yield Case(exponent, float(offset), float(spread), int(random.integers(3)))


def _axes(letter: str, shape: tuple[int, ...]) -> str:
    return letter + "x".join(map(str, shape))


def programs(subject: Subject, count: int, num_cases: int) -> list[Program]:
    """Chooses programs of a subject: each axis of the choice runs through all its values."""
    random = np.random.default_rng(zlib.crc32(subject.name.encode()))
    columns = [
        _cycled(random, values, count)
        for values in (subject.dimensions, subject.layouts, DTYPES, MEMBERS)
    ]
    chosen = []
    for dimension, (batch, context), dtype, members in zip(*columns, strict=True):
        # An empty batch is empty in every unit.
        empty = 0 in batch
        few = empty or (subject.costly and dimension == max(DIMENSIONS))
        number, members = (2, 0) if few else (num_cases, members)
        program = Program(subject, dimension, batch, context, dtype, members, number)
        if program not in chosen:
            chosen.append(program)
    return chosen


def _cycled(random: np.random.Generator, values: Sequence[Any], count: int) -> list[Any]:
    """All values in random order, then all again, up to a count."""
    rounds = -(-count // len(values))
    return [values[i] for _ in range(rounds) for i in random.permutation(len(values))][:count]
