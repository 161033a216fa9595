"""What single latents tell of factors, and how much more the best tells than the second."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from vaeflow.metrics.representation import as_representation, mean_gap


def mutual_information_matrix(
    codes: Float[np.ndarray, "example latent"],
    factors: Int[np.ndarray, "example factor"],
    bins: int = 20,
) -> Float[np.ndarray, "latent factor"]:
    """Computes I(z_i; v_k) of each latent and factor in nats, the latents cut into bins.

    The bins are of equal width, from the least to the largest value of a latent; factors are taken
    value by value. That is what published scores rest on. Scores of other bins, such as ones of
    equal frequency, or of another number of them, are not comparable.

    It is the information in the histogram, between 0 and the entropy of the factor, and too high by
    about (bins - 1) (values - 1) / (2 examples) where the two are independent: 0.04 for 20 bins, 40
    values and 10,000 examples. Only differences beyond that mean something.

    Args:
      codes: The middles of the posteriors; each latent in any units.
      factors: What the examples were made of.
      bins: Number of bins of a latent, at least 2.

    Raises:
      ValueError: If `codes` or `factors` have wrong shapes, codes aren't finite, factors aren't
        integers or one is constant, or there are too few bins.
    """
    codes, factors = as_representation(codes, factors)
    if bins < 2:
        raise ValueError(f"bins must be at least 2, got {bins}")
    latents = [_binned(latent, bins) for latent in codes.T]
    values = [_numbered(factor) for factor in factors.T]
    return np.array([[_information(latent, factor) for factor in values] for latent in latents])


def mutual_information_gap(
    codes: Float[np.ndarray, "example latent"],
    factors: Int[np.ndarray, "example factor"],
    bins: int = 20,
) -> float:
    """Computes the mutual information gap (MIG): mean_k [I(z_(1); v_k) - I(z_(2); v_k)] / H(v_k).

    z_(1) and z_(2) are the latents that tell most and second most of a factor. From 0 to 1. It is 1
    if each factor is known from one latent and from no other, which takes as many bins as values;
    20 bins of a factor with n > 20 values leave about log 20 / log n of it. Of useless latents it
    is about 0, as it is where two latents tell the same. Of a single latent the second tells 0.

    Chen et al. integrate over q(z | x) of the whole data set. Here the latents are the middles of
    the posteriors, and cut into bins (see `mutual_information_matrix`), as in Locatello et al.
    2019: that takes no density, so any representation has this score, and it is the one that most
    published numbers are of. It doesn't see the noise of the posterior.

    Source: Chen, Li, Grosse & Duvenaud 2018, "Isolating sources of disentanglement in VAEs",
    equation 6; Locatello et al. 2019, "Challenging common assumptions in the unsupervised learning
    of disentangled representations", appendix B.

    Args:
      codes: As for `mutual_information_matrix`.
      factors: As for `mutual_information_matrix`.
      bins: As for `mutual_information_matrix`.

    Raises:
      ValueError: As `mutual_information_matrix`.
    """
    information = mutual_information_matrix(codes, factors, bins)
    values = [_numbered(factor) for factor in np.asarray(factors).T]
    return mean_gap(information / [_information(factor, factor) for factor in values])


def _binned(latent: np.ndarray, bins: int) -> np.ndarray:
    """The number of the bin of each value; a constant latent has one bin."""
    low, high = np.min(latent), np.max(latent)
    if low == high:
        return np.zeros(len(latent), np.int64)
    # Halves, so that the widest range doesn't overflow.
    share = (latent / 2 - low / 2) / (high / 2 - low / 2)
    return np.minimum((bins * share).astype(np.int64), bins - 1)


def _numbered(factor: np.ndarray) -> np.ndarray:
    return np.unique(factor, return_inverse=True)[1]


def _information(first: np.ndarray, second: np.ndarray) -> float:
    """Mutual information of two columns of small numbers, in nats."""
    shape = np.max(first) + 1, np.max(second) + 1
    counts = np.bincount(np.ravel_multi_index((first, second), shape), minlength=np.prod(shape))
    counts = counts.reshape(shape).astype(np.float64)
    # Products of counts are exact, so that independent columns have exactly 0.
    independent = np.sum(counts, axis=1, keepdims=True) * np.sum(counts, axis=0)
    seen = counts > 0
    terms = counts[seen] * np.log(len(first) * counts[seen] / independent[seen])
    return float(np.sum(terms) / len(first))
