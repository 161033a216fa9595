"""Nearest neighbours in pixel space."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int, Num

# Bounds the memory of the differences: 64 MiB of float64.
_BLOCK = 2**23


def nearest_neighbors(
    queries: Num[np.ndarray, "query *event"],
    references: Num[np.ndarray, "reference *event"],
    count: int = 1,
) -> tuple[Int[np.ndarray, "query count"], Float[np.ndarray, "query count"]]:
    """Finds the references that are nearest to each query in Euclidean distance.

    Beside samples they show whether a model has learned its training images by heart.

    Args:
      queries: Arrays to look up, shape ``[query, *event]``.
      references: Arrays to search, shape ``[reference, *event]``.
      count: How many neighbours of each query.

    Returns:
      Indices into `references` and distances, both of shape [query, count], nearest first; equally
      near ones in the order of `references`.

    Raises:
      ValueError: If the shapes of the examples differ or there are fewer references than `count`.
    """
    queries = np.asarray(queries)
    references = np.asarray(references)
    if queries.shape[1:] != references.shape[1:]:
        raise ValueError(
            "queries and references must hold examples of one shape, got"
            f" {queries.shape} and {references.shape}"
        )
    if not 1 <= count <= len(references):
        raise ValueError(
            f"count must be from 1 to {len(references)}, the number of references, got {count}"
        )
    indices = np.empty((len(queries), count), dtype=np.int64)
    distances = np.empty((len(queries), count))
    block = max(1, _BLOCK // max(1, math.prod(references.shape[1:])))
    for row, query in enumerate(queries):
        squares = np.concatenate(
            [
                # Differences, not products: close neighbours lose no digits.
                np.square(references[start : start + block] - query.astype(np.float64))
                .reshape(len(references[start : start + block]), -1)
                .sum(axis=1)
                for start in range(0, len(references), block)
            ]
        )
        nearest = np.argsort(squares, kind="stable")[:count]
        indices[row] = nearest
        distances[row] = np.sqrt(squares[nearest])
    return indices, distances
