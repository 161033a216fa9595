"""Groups of examples that share the value of one factor."""

from __future__ import annotations

import numpy as np


def standardized(codes: np.ndarray) -> np.ndarray:
    """Latents in units of their deviation; constant ones are zero."""
    codes = codes / np.maximum(np.max(np.abs(codes), axis=0), np.finfo(np.float64).tiny)
    centered = np.where(np.ptp(codes, axis=0) > 0, codes - np.mean(codes, axis=0), 0.0)
    return centered / np.maximum(np.std(centered, axis=0), np.finfo(np.float64).tiny)


def halves(codes: np.ndarray, factors: np.ndarray, random: np.random.Generator) -> list[tuple]:
    """Codes and factors of one half of the examples, to fit on, and of the other.

    Groups that are drawn from the same examples would share what these have by chance.
    """
    parts = np.array_split(random.permutation(len(codes)), 2)
    return [(codes[part], factors[part]) for part in parts]


def shared_groups(
    codes: np.ndarray, factor: np.ndarray, groups: int, size: int, random: np.random.Generator
) -> np.ndarray:
    """Draws codes that share the value of a factor, with replacement, [group, size, latent].

    Raises:
      ValueError: If every value occurs once.
    """
    values, numbers, counts = np.unique(factor, return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(counts[numbers] > 1)
    if len(repeated) == 0:
        raise ValueError(
            "factors must take some value twice in each half of the examples, got a column of "
            f"{len(values)} values, once each"
        )
    order, starts = np.argsort(numbers, kind="stable"), np.cumsum(counts) - counts
    chosen = numbers[random.choice(repeated, groups)][:, None]
    places = random.integers(0, counts[chosen], (groups, size))
    return codes[order[starts[chosen] + places]]
