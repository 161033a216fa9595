"""Whether each latent tells of one factor alone."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from vaeflow.metrics.mutual_information import mutual_information_matrix


def modularity(
    codes: Float[np.ndarray, "example latent"],
    factors: Int[np.ndarray, "example factor"],
    bins: int = 20,
) -> float:
    """Computes the modularity: mean_i [1 - sum_(k != m) I_ik^2 / (I_im^2 (K - 1))].

    I_ik is the mutual information of latent i and factor k, out of K, and m the factor that the
    latent tells most of. From 0 to 1. It is 1 if each latent tells of one factor only, even if
    others tell the same or some factor is in no latent, and 0 if all tell equally of all factors.
    Latents that tell exactly nothing, such as constant ones, don't count; without any other the
    score is 0. There is no level of chance: of noise the bias of the information decides, which is
    larger for factors of more values, so that useless latents may score highly. Read it beside a
    score of how much the latents tell.

    Source: Ridgeway & Mozer 2018, "Learning deep disentangled embeddings with the F-statistic
    loss", section 3.

    Args:
      codes: As for `vaeflow.metrics.mutual_information_matrix`.
      factors: As for `vaeflow.metrics.mutual_information_matrix`.
      bins: As for `vaeflow.metrics.mutual_information_matrix`.

    Raises:
      ValueError: As `vaeflow.metrics.mutual_information_matrix`.
    """
    information = mutual_information_matrix(codes, factors, bins)
    informative = information[np.max(information, axis=1) > 0]
    if len(informative) == 0:
        return 0.0
    shares = informative / np.max(informative, axis=1, keepdims=True)
    # The largest share is 1. A single factor has no others.
    deviations = (np.sum(shares**2, axis=1) - 1) / max(shares.shape[1] - 1, 1)
    return float(np.mean(1 - deviations))
