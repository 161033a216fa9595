"""Bits per dimension."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float


def bits_per_dim(nats: Float[np.ndarray, "*batch"], dimensions: int) -> Float[np.ndarray, "*batch"]:
    """Converts a negative log-likelihood into bits per dimension: nats / (dimensions log 2).

    Args:
      nats: Negative log-likelihood of whole examples in nats, a scalar or an array of any shape.
      dimensions: How many numbers make an example, height * width * channel for an image.

    Returns:
      Bits per dimension, of the shape of `nats`.

    Raises:
      ValueError: If `dimensions` is not positive.
    """
    if dimensions < 1:
        raise ValueError(f"dimensions must be at least 1, got {dimensions}")
    return nats / (dimensions * math.log(2))
