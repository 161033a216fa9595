"""Splits of arrays that lie in memory."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, UInt8

from vaeflow.data.splits import Part


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
