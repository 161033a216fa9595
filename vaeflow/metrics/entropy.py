"""Entropies of categories."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def entropy_of(
    probabilities: Float[np.ndarray, "*batch category"],
) -> Float[np.ndarray, "*batch"]:
    """Computes -sum_k p_k log p_k in nats, exactly 0 for what is certain."""
    logarithms = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    return 0.0 - np.sum(probabilities * logarithms, axis=-1)  # and never -0


def label_entropy(labels: Int[np.ndarray, " example"]) -> float:
    """Computes -sum_k p_k log p_k, p_k being the share of label k: how evenly classes occur.

    In nats: 0 where all labels are one, up to log K where each of K is as frequent. Of the most
    probable classes of a model's samples it tells how many of the classes they cover; hold it
    against that of the data's own labels. Of few examples it is too low, by about
    (K - 1) / (2 examples).

    Args:
      labels: The label of each example, from 0 up, such as ``probabilities.argmax(-1)``.

    Raises:
      ValueError: If `labels` isn't a vector of integers from 0 up, with one at least.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or not labels.size or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ValueError(
            "labels must be integers from 0 up, [example], one or more, got "
            f"{labels.dtype} of shape {labels.shape}, the least {np.min(labels, initial=0)}"
        )
    counts = np.unique(labels, return_counts=True)[1]
    return float(entropy_of(counts / len(labels)))
