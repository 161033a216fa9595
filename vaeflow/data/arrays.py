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
    return Part(lambda rows: (images[rows], None if labels is None else labels[rows]), len(images))
