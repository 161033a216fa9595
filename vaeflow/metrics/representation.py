"""Checks of representations and of the factors that they are held against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def as_representation(
    codes: np.ndarray, factors: np.ndarray, categorical: Sequence[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Returns codes in float64 and factors in int64 after checking them.

    Args:
      codes: Numbers, shape [example, latent].
      factors: Integers, shape [example, factor].
      categorical: Columns of `factors` that are categories.

    Raises:
      ValueError: If the shapes don't fit each other, there are fewer than two examples, codes
        aren't finite, factors aren't integers, a factor takes a single value, of which nothing can
        be told, or a categorical one doesn't exist.
    """
    codes, factors = np.asarray(codes), np.asarray(factors)
    tables = codes.ndim == factors.ndim == 2 and codes.size > 0 and factors.size > 0
    if not tables or len(codes) != len(factors) or len(codes) < 2:
        raise ValueError(
            "codes and factors must have shapes [example, latent] and [example, factor], with the"
            f" same 2 examples or more, got {codes.shape} and {factors.shape}"
        )
    if factors.dtype.kind not in "iu":
        raise ValueError(f"factors must be integers, got {factors.dtype}")
    codes, factors = codes.astype(np.float64), factors.astype(np.int64)
    if not np.isfinite(codes).all():
        raise ValueError(f"codes must be finite, got {np.sum(~np.isfinite(codes))} that aren't")
    constant = np.flatnonzero(np.all(factors == factors[0], axis=0))
    if len(constant):
        raise ValueError(f"factors must have columns that vary, got a constant one, {constant[0]}")
    if not all(0 <= column < factors.shape[1] for column in categorical):
        raise ValueError(
            f"categorical must name columns of the {factors.shape[1]} factors, got {categorical}"
        )
    return codes, factors


def ranks(codes: np.ndarray) -> np.ndarray:
    """The place of each code among the different values of its latent, from 0.

    Trees see no more than that, and scikit-learn's hold it in float32.
    """
    return np.stack([np.unique(latent, return_inverse=True)[1] for latent in codes.T], axis=1)


def mean_gap(scores: np.ndarray) -> float:
    """Averages over columns the largest score less the second; where there is no second, less 0."""
    ordered = np.sort(np.concatenate([np.zeros((1, scores.shape[1])), scores]), axis=0)
    return float(np.mean(ordered[-1] - ordered[-2]))
