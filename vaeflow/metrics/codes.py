"""How much of a codebook is used."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from vaeflow.metrics.entropy import entropy_of


def code_perplexity(counts: Int[np.ndarray, "*codebooks code"]) -> Float[np.ndarray, "*codebooks"]:
    """Computes exp(-sum_k p_k log p_k), p_k being the share of code k: the codes in even use.

    From 1, where all latents have one code, to the number of codes, where all are used alike. Add
    counts up over an epoch first: a batch has no more codes than latents.

    Args:
      counts: How often each code was used, as `vaeflow.quantizers.Quantized` has them.

    Raises:
      ValueError: If a count isn't a whole number from 0 up, or a codebook has none above 0.
    """
    counts = _checked(counts)
    return np.exp(entropy_of(counts / np.sum(counts, axis=-1, keepdims=True)))


def live_codes(counts: Int[np.ndarray, "*codebooks code"]) -> Float[np.ndarray, "*codebooks"]:
    """Computes the share of codes that were used at all, from 0 to 1.

    Args:
      counts: As for `code_perplexity`.

    Raises:
      ValueError: As `code_perplexity`.
    """
    return np.mean(_checked(counts) > 0, axis=-1)


def _checked(counts: np.ndarray) -> np.ndarray:
    counts = np.asarray(counts)
    if counts.ndim < 1 or counts.dtype.kind not in "iu" or np.any(counts < 0):
        raise ValueError(
            f"counts must be integers from 0 up, [*codebooks, code], got {counts.dtype} of shape "
            f"{counts.shape}, the least {np.min(counts, initial=0)}"
        )
    if not np.all(np.sum(counts, axis=-1) > 0):
        raise ValueError("counts must be above 0 for some code of each codebook, got none")
    return counts.astype(np.float64)
