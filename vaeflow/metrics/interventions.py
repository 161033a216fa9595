"""Disentanglement by interventions on factors: the beta-VAE and FactorVAE scores."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from vaeflow.metrics._inputs import as_representation, import_scikit_learn


def standardized(codes: np.ndarray) -> np.ndarray:
    """Returns latents in units of their standard deviation; constant ones are zero."""
    codes = codes / np.maximum(np.max(np.abs(codes), axis=0), np.finfo(np.float64).tiny)
    centered = np.where(np.ptp(codes, axis=0) > 0, codes - np.mean(codes, axis=0), 0.0)
    return centered / np.maximum(np.std(centered, axis=0), np.finfo(np.float64).tiny)


def halves(codes: np.ndarray, factors: np.ndarray, random: np.random.Generator) -> list[tuple]:
    """Returns codes and factors of one half of the examples, to fit on, and of the other.

    Groups of the same examples would share their sampling noise.
    """
    parts = np.array_split(random.permutation(len(codes)), 2)
    return [(codes[part], factors[part]) for part in parts]


def shared_groups(
    codes: np.ndarray, factor: np.ndarray, groups: int, size: int, random: np.random.Generator
) -> np.ndarray:
    """Samples codes that share the value of a factor, with replacement, [group, size, latent].

    Raises:
      ValueError: If every value occurs once.
    """
    values, numbers, counts = np.unique(factor, return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(counts[numbers] > 1)
    if len(repeated) == 0:
        raise ValueError(
            "factors must take some value twice in each half of the examples, got a column of "
            f"{len(values)} values, once each"
        )
    order, starts = np.argsort(numbers, kind="stable"), np.cumsum(counts) - counts
    chosen = numbers[random.choice(repeated, groups)][:, None]
    places = random.integers(0, counts[chosen], (groups, size))
    return codes[order[starts[chosen] + places]]


_BETA_GROUPS = 500

_PAIRS = 64


def beta_vae_score(
    codes: Float[np.ndarray, "example latent"],
    factors: Int[np.ndarray, "example factor"],
    *,
    seed: int = 0,
) -> float:
    """Computes the beta-VAE score: the accuracy of a linear classifier of the fixed factor.

    Its input is the mean of ``|z - z'|`` over 64 pairs, each of which shares a value of the factor,
    with the latents in units of their standard deviation. It is fitted on 500 such means of each
    factor, from one half of the examples, and the score is its accuracy on 500 from the other: 1
    for perfect representations and for a single factor, about 1 / K of useless latents and K
    factors. It is a weak test: latents that mix the factors in different ways, as a rotation does,
    may still score near 1.

    Pairs are sampled from the given examples instead of a simulator, as for `factor_vae_score`.

    Source: Higgins et al. 2017, "beta-VAE: Learning basic visual concepts with a constrained
    variational framework", section 3. They don't normalise the latents.

    Args:
      codes: Posterior means; each latent in any units.
      factors: Ground-truth factors of the examples.
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
        """Returns mean differences with each of the factors fixed, shape [group, latent]."""
        means = []
        for factor in factors.T:
            pairs = shared_groups(codes, factor, _BETA_GROUPS * _PAIRS, 2, random)
            distances = np.abs(pairs[:, 0] - pairs[:, 1])
            means.append(np.mean(distances.reshape(_BETA_GROUPS, _PAIRS, -1), axis=1))
        return np.concatenate(means)

    first, second = (differences(*half) for half in halves(codes, factors, random))
    fixed = np.repeat(np.arange(factors.shape[1]), _BETA_GROUPS)
    model = linear_model.LogisticRegression(max_iter=1000).fit(first, fixed)
    return float(np.mean(model.predict(second) == fixed))


_FACTOR_GROUPS = 500

_GROUP_SIZE = 64


def factor_vae_score(
    codes: Float[np.ndarray, "example latent"],
    factors: Int[np.ndarray, "example factor"],
    *,
    seed: int = 0,
) -> float:
    """Computes the FactorVAE score: the accuracy of a majority vote on the fixed factor.

    In a group of 64 examples that share the value of a factor, the latent whose variance falls
    most, relative to that over all examples, votes for the factor. Each latent stands for the
    factor that it votes for most in 500 groups of each factor, from one half of the examples; the
    score is how often that is right in 500 from the other half. It is 1 if each factor has a latent
    that varies with it alone, and about 1 / K of useless latents and K factors. Constant latents
    have no vote.

    Groups are sampled from the given examples instead of a simulator: from those that share the
    value of an example chosen at random. The other factors must be independent of the fixed one
    there, and values should have tens of examples; those that occur once aren't fixed.

    Source: Kim & Mnih 2018, "Disentangling by factorising", section 4.

    Args:
      codes: Posterior means; each latent in any units.
      factors: Ground-truth factors of the examples.
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
        """Counts the votes of each latent while each factor is fixed, shape [factor, latent]."""
        counts = []
        for factor in factors.T:
            groups = shared_groups(codes, factor, _FACTOR_GROUPS, _GROUP_SIZE, random)
            voters = np.argmin(np.where(constant, np.inf, np.var(groups, axis=1)), axis=1)
            counts.append(np.bincount(voters, minlength=codes.shape[1]))
        return np.array(counts)

    first, second = (votes(*half) for half in halves(codes, factors, random))
    right = second[np.argmax(first, axis=0), np.arange(codes.shape[1])]
    return float(np.sum(right) / np.sum(second))
