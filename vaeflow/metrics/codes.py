"""Use of the codes of quantizers, and accuracy of clusters."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from vaeflow.metrics.samples import entropy_of


def code_perplexity(counts: Int[np.ndarray, "*codebooks code"]) -> Float[np.ndarray, "*codebooks"]:
    """Computes the perplexity exp(-sum_k p_k log p_k) of codes, p_k being the share of code k.

    From 1, where all latents have one code, to the number of codes, where all are used equally
    often. Add counts up over an epoch first: a batch has no more codes than latents.

    Args:
      counts: How often each code was used, as `vaeflow.quantizers.Quantized` has them.

    Raises:
      ValueError: If a count isn't a whole number from 0 up, or a codebook has none above 0.
    """
    counts = _check_counts(counts)
    return np.exp(entropy_of(counts / np.sum(counts, axis=-1, keepdims=True)))


def live_codes(counts: Int[np.ndarray, "*codebooks code"]) -> Float[np.ndarray, "*codebooks"]:
    """Computes the share of codes that were used at least once, from 0 to 1.

    Args:
      counts: As for `code_perplexity`.

    Raises:
      ValueError: As `code_perplexity`.
    """
    return np.mean(_check_counts(counts) > 0, axis=-1)


def _check_counts(counts: np.ndarray) -> np.ndarray:
    counts = np.asarray(counts)
    if counts.ndim < 1 or counts.dtype.kind not in "iu" or np.any(counts < 0):
        raise ValueError(
            f"counts must be integers from 0 up, [*codebooks, code], got {counts.dtype} of shape "
            f"{counts.shape}, the least {np.min(counts, initial=0)}"
        )
    if not np.all(np.sum(counts, axis=-1) > 0):
        raise ValueError("counts must be above 0 for some code of each codebook, got none")
    return counts.astype(np.float64)


def cluster_accuracy(
    assignments: Int[np.ndarray, " example"], labels: Int[np.ndarray, " example"]
) -> float:
    """Computes the clustering accuracy max_m (1/N) #{n : m(cluster_n) = label_n}, over maps m.

    A map takes clusters to labels, no two to the same: where there are more clusters than labels,
    the examples of those left over count as wrong. The best map is that of the Hungarian method.

    Source: Xie, Girshick & Farhadi 2016, "Unsupervised deep embedding for clustering analysis",
    equation 10.

    Args:
      assignments: The cluster of each example, from 0 up.
      labels: The label of each example, from 0 up.

    Raises:
      ValueError: If they aren't vectors of integers from 0 up, of one length above 0.
    """
    from scipy.optimize import linear_sum_assignment

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
