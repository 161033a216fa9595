"""The score of whether differences tell which factor is fixed."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from vaeflow.metrics.fixed_factor import halves, shared_groups, standardized
from vaeflow.metrics.representation import as_representation
from vaeflow.metrics.scikit_learn import import_scikit_learn

_GROUPS = 500
_PAIRS = 64


def beta_vae_score(
    codes: Float[np.ndarray, "example latent"],
    factors: Int[np.ndarray, "example factor"],
    *,
    seed: int = 0,
) -> float:
    """Computes the beta-VAE score: how well a linear classifier tells which factor is fixed.

    It sees the mean of ``|z - z'|`` over 64 pairs that share the value of a factor, each pair one
    of its own, with the latents in units of their deviation. It is fitted on 500 such means of each
    factor, from one half of the examples, and the score is its accuracy on 500 from the other: 1
    for perfect representations and for a single factor, about 1 / K of useless latents and K
    factors. It is a weak test: latents that mix the factors in different ways, as a rotation does,
    may still score near 1.

    The examples at hand stand for the process that made them, as for `factor_vae_score`.

    Source: Higgins et al. 2017, "beta-VAE: Learning basic visual concepts with a constrained
    variational framework", section 3. The units of the latents are their own there.

    Args:
      codes: The middles of the posteriors; each latent in any units.
      factors: What the examples were made of.
      seed: Seed of the pairs.

    Raises:
      ValueError: As `factor_vae_score`, or if scikit-learn is missing.
    """
    codes, factors = as_representation(codes, factors)
    if factors.shape[1] == 1:
        return 1.0
    codes = standardized(codes)
    linear_model = import_scikit_learn("linear_model", "beta_vae_score")
    random = np.random.default_rng(seed)

    def differences(codes: np.ndarray, factors: np.ndarray) -> np.ndarray:
        """Mean differences with each factor fixed in turn, shape [group, latent]."""
        means = []
        for factor in factors.T:
            pairs = shared_groups(codes, factor, _GROUPS * _PAIRS, 2, random)
            apart = np.abs(pairs[:, 0] - pairs[:, 1])
            means.append(np.mean(apart.reshape(_GROUPS, _PAIRS, -1), axis=1))
        return np.concatenate(means)

    first, second = (differences(*half) for half in halves(codes, factors, random))
    fixed = np.repeat(np.arange(factors.shape[1]), _GROUPS)
    model = linear_model.LogisticRegression(max_iter=1000).fit(first, fixed)
    return float(np.mean(model.predict(second) == fixed))
