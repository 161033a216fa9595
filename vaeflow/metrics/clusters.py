"""How well clusters agree with labels."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int
from scipy.optimize import linear_sum_assignment


def cluster_accuracy(
    assignments: Int[np.ndarray, " example"], labels: Int[np.ndarray, " example"]
) -> float:
    """Computes max_m (1/N) #{n : m(cluster_n) = label_n}, over maps m of clusters to labels.

    A map takes no two clusters to one label: where there are more clusters than labels, the
    examples of those left over count as wrong. The best map is that of the Hungarian method.

    Source: Xie, Girshick & Farhadi 2016, "Unsupervised deep embedding for clustering analysis",
    equation 10.

    Args:
      assignments: The cluster of each example, from 0 up.
      labels: The label of each example, from 0 up.

    Raises:
      ValueError: If they aren't vectors of integers from 0 up, of one length above 0.
    """
    assignments, labels = np.asarray(assignments), np.asarray(labels)
    if assignments.ndim != 1 or assignments.shape != labels.shape or not len(labels):
        raise ValueError(
            "assignments and labels must be vectors of one length above 0, got shapes "
            f"{assignments.shape} and {labels.shape}"
        )
    for name, values in (("assignments", assignments), ("labels", labels)):
        if values.dtype.kind not in "iu" or values.min() < 0:
            raise ValueError(
                f"{name} must be integers from 0 up, got {values.dtype} from {values.min()}"
            )
    counts = np.zeros((assignments.max() + 1, labels.max() + 1), np.int64)
    np.add.at(counts, (assignments, labels), 1)
    return float(counts[linear_sum_assignment(counts, maximize=True)].sum() / len(labels))
