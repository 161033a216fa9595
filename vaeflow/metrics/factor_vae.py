"""The score of what varies least while a factor is fixed."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from vaeflow.metrics.fixed_factor import halves, shared_groups, standardized
from vaeflow.metrics.representation import as_representation

_GROUPS = 500
_GROUP_SIZE = 64


def factor_vae_score(
    codes: Float[np.ndarray, "example latent"],
    factors: Int[np.ndarray, "example factor"],
    *,
    seed: int = 0,
) -> float:
    """Computes the FactorVAE score: how often the stillest latent gives the fixed factor away.

    In a group of 64 examples that share the value of a factor, the latent whose variance falls
    most, relative to that over all examples, votes for the factor. Each latent stands for the
    factor that it votes for most in 500 groups of each factor, from one half of the examples; the
    score is how often that is right in 500 from the other half. It is 1 if each factor has a latent
    that varies with it alone, and about 1 / K of useless latents and K factors. Constant latents
    have no vote.

    The examples at hand stand for the process that made them: groups are drawn from those with the
    value of an example at random. The other factors must be independent of the fixed one there, and
    values should have tens of examples; those that occur once aren't fixed.

    Source: Kim & Mnih 2018, "Disentangling by factorising", section 4.

    Args:
      codes: The middles of the posteriors; each latent in any units.
      factors: What the examples were made of.
      seed: Seed of the groups.

    Raises:
      ValueError: If `codes` or `factors` have wrong shapes, codes aren't finite, factors aren't
        integers, or one is constant or doesn't take any value twice in each half.
    """
    codes, factors = as_representation(codes, factors)
    codes = standardized(codes)
    constant = np.ptp(codes, axis=0) == 0
    random = np.random.default_rng(seed)

    def votes(codes: np.ndarray, factors: np.ndarray) -> np.ndarray:
        """How often each latent votes while each factor is fixed, shape [factor, latent]."""
        counts = []
        for factor in factors.T:
            groups = shared_groups(codes, factor, _GROUPS, _GROUP_SIZE, random)
            stillest = np.argmin(np.where(constant, np.inf, np.var(groups, axis=1)), axis=1)
            counts.append(np.bincount(stillest, minlength=codes.shape[1]))
        return np.array(counts)

    first, second = (votes(*half) for half in halves(codes, factors, random))
    right = second[np.argmax(first, axis=0), np.arange(codes.shape[1])]
    return float(np.sum(right) / np.sum(second))
