"""How often classes stay as they were."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int


def agreement(before: Int[np.ndarray, " image"], after: Int[np.ndarray, " image"]) -> float:
    """Computes the share of images whose class after a change is that before it.

    Of the classes that a classifier of each domain finds it tells whether a translation keeps the
    content of an image. It is 1 where all do; where classes after are independent of those before,
    it is the sum over classes of the product of their shares, 1 / K for K even ones. Hold it
    against the accuracies of the classifiers, as no translation can be expected to do better.

    Args:
      before: The class of each image.
      after: The class of what has become of it.

    Raises:
      ValueError: If they aren't vectors of integers of one length above 0.
    """
    before, after = np.asarray(before), np.asarray(after)
    if before.ndim != 1 or before.shape != after.shape or not len(before):
        raise ValueError(
            "before and after must be vectors of one length above 0, got shapes "
            f"{before.shape} and {after.shape}"
        )
    for name, values in (("before", before), ("after", after)):
        if values.dtype.kind not in "iu":
            raise ValueError(f"{name} must be integers, got {values.dtype}")
    return float(np.mean(before == after))
