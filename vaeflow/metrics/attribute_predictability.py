"""How much better the best latent predicts a factor than the second."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from vaeflow.metrics.representation import as_representation, mean_gap, ranks
from vaeflow.metrics.scikit_learn import import_scikit_learn


def separated_attribute_predictability(
    codes: Float[np.ndarray, "example latent"],
    factors: Int[np.ndarray, "example factor"],
    *,
    categorical: Sequence[int] = (),
) -> float:
    """Computes the separated attribute predictability (SAP): mean_k S_(1)k - S_(2)k.

    S_ik says how well latent i alone predicts factor k, and (1), (2) are the best two latents. For
    a factor of numbers it is the R^2 of a linear regression. For one of n categories it is the
    balanced accuracy of n - 1 thresholds on the latent (a decision tree, fitted and measured on
    the same examples). Constant latents have S = 0, and so has the second of a single latent.

    From 0 to 1. A factor of numbers gives 1 if one latent is linear in it and no other correlates
    with it; a category with n values gives up to 1 - 1/n, as useless latents guess right in one of
    n cases. Of useless latents the score is about 0. A number that a latent follows along a curve,
    such as an angle, gives less.

    Source: Kumar, Sattigeri & Balakrishnan 2018, "Variational inference of disentangled latent
    concepts from unlabeled observations", section 3. They set S to 0 for latents of a variance
    below 0.05, which depends on the latents' units.

    Args:
      codes: The middles of the posteriors; each latent in any units.
      factors: What the examples were made of.
      categorical: Columns of `factors` whose order means nothing, such as shapes.

    Raises:
      ValueError: If `codes` or `factors` have wrong shapes, codes aren't finite, factors aren't
        integers or one is constant, a column isn't there, or scikit-learn is missing.
    """
    codes, factors = as_representation(codes, factors, categorical)
    scores = _squared_correlations(codes, factors)
    for column in categorical:
        for row, latent in enumerate(ranks(codes).T):
            if np.any(latent):
                scores[row, column] = _accuracy(latent[:, None], factors[:, column])
    return mean_gap(scores)


def _squared_correlations(codes: np.ndarray, factors: np.ndarray) -> np.ndarray:
    constant = np.ptp(codes, axis=0) == 0
    first, second = _unit(codes), _unit(factors.astype(np.float64))
    return np.where(constant[:, None], 0.0, (first.T @ second) ** 2)


def _unit(columns: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and length 1; constant ones of any."""
    columns = columns / np.maximum(np.max(np.abs(columns), axis=0), np.finfo(np.float64).tiny)
    centered = columns - np.mean(columns, axis=0)
    return centered / np.maximum(np.linalg.norm(centered, axis=0), np.finfo(np.float64).tiny)


def _accuracy(latent: np.ndarray, factor: np.ndarray) -> float:
    """Balanced accuracy of thresholds on a latent, shape [example, 1]."""
    tree = import_scikit_learn("tree", "separated_attribute_predictability")
    values = np.unique(factor)
    model = tree.DecisionTreeClassifier(
        class_weight="balanced", max_leaf_nodes=len(values), random_state=0
    )
    right = model.fit(latent, factor).predict(latent) == factor
    return float(np.mean([np.mean(right[factor == value]) for value in values]))
