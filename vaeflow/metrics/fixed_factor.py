"""Groups of examples that share the value of one factor."""

from __future__ import annotations

import numpy as np


def standardized(codes: np.ndarray) -> np.ndarray:
    """Latents in units of their deviation; constant ones are zero."""
    codes = codes / np.maximum(np.max(np.abs(codes), axis=0), np.finfo(np.float64).tiny)
    centered = np.where(np.ptp(codes, axis=0) > 0, codes - np.mean(codes, axis=0), 0.0)
    return centered / np.maximum(np.std(centered, axis=0), np.finfo(np.float64).tiny)


def shared_groups(
    factors: np.ndarray, column: int, groups: int, size: int, random: np.random.Generator
) -> np.ndarray:
    """Draws rows that share the value of a factor, with replacement, shape [group, size].

    Raises:
      ValueError: If every value occurs once.
    """
    values, numbers, counts = np.unique(factors[:, column], return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(counts[numbers] > 1)
    if len(repeated) == 0:
        raise ValueError(
            "factors must take some value twice in every column, got one that doesn't, "
            f"{column}, with {len(values)} values"
        )
    order, starts = np.argsort(numbers, kind="stable"), np.cumsum(counts) - counts
    chosen = numbers[random.choice(repeated, groups)][:, None]
    places = random.integers(0, counts[chosen], (groups, size))
    return order[starts[chosen] + places]
