"""Which latents a predictor of the factors uses, and how well it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from vaeflow.metrics.entropy import entropy_of
from vaeflow.metrics.representation import as_representation, ranks
from vaeflow.metrics.scikit_learn import import_scikit_learn

_TREES = 50
# Smaller leaves learn the noise of factors that can't be predicted in full, and share its
# importance out among all latents.
_LEAST_LEAF = 5


class PredictorImportance(NamedTuple):
    """How the factors are spread over the latents.

    Attributes:
      disentanglement: Whether each latent matters for one factor only: the mean of
        1 - H(P_i) / log K, weighted by the latents' importance, where P_i is the share of each of K
        factors in the importance of latent i. From 0 to 1.
      completeness: Whether each factor is in one latent only: the mean of 1 - H(P_k) / log D, where
        P_k is the share of each of D latents in the prediction of factor k. From 0 to 1.
      informativeness: Whether the factors can be predicted at all: the mean of 1 - error / error of
        the best constant guess, on held-out examples; for numbers the squared error, so R^2, and
        for categories the share that is wrong. 1 if all is right; about 0, or a little below, of
        useless latents.
      importance: Share of each latent in the prediction of each factor, ``[latent, factor]``.
        Columns sum to one, or to zero where no latent varies.
    """

    disentanglement: float
    completeness: float
    informativeness: float
    importance: Float[np.ndarray, "latent factor"]


def disentanglement_completeness_informativeness(
    codes: Float[np.ndarray, "example latent"],
    factors: Int[np.ndarray, "example factor"],
    *,
    categorical: Sequence[int] = (),
    seed: int = 0,
) -> PredictorImportance:
    """Computes disentanglement, completeness and informativeness (DCI) from random forests.

    A forest predicts each factor from all latents, fitted on one half of the examples and measured
    on the other: regression trees for numbers, classification trees for categories. The importance
    of a latent is the impurity that the trees remove by it. A perfect representation has three
    ones. Of useless latents all are about 0. A single latent is complete and a single factor
    disentangled, as there is nothing else.

    The forests have 50 trees with 5 examples or more in a leaf. Scores of other predictors, such as
    lasso or boosted trees, are not comparable, and neither are errors or accuracies published as
    informativeness.

    Source: Eastwood & Williams 2018, "A framework for the quantitative evaluation of disentangled
    representations", section 2.

    Args:
      codes: The middles of the posteriors; each latent in any units.
      factors: What the examples were made of.
      categorical: Columns of `factors` whose order means nothing, such as shapes.
      seed: Seed of the halves and of the forests.

    Raises:
      ValueError: If `codes` or `factors` have wrong shapes, codes aren't finite, factors aren't
        integers or one is constant, a column isn't there, or scikit-learn is missing.
    """
    codes, factors = as_representation(codes, factors, categorical)
    order = np.random.default_rng(seed).permutation(len(codes))
    fitted = [
        _predict(ranks(codes)[order], factor[order], column in categorical, seed)
        for column, factor in enumerate(factors.T)
    ]
    importance = np.stack([found[0] for found in fitted], axis=1)
    by_latent = np.sum(importance, axis=1)
    return PredictorImportance(
        disentanglement=float(
            np.sum(by_latent * _concentration(importance)) / max(np.sum(by_latent), 1e-300)
        ),
        completeness=float(np.mean(_concentration(importance.T))),
        informativeness=float(np.mean([found[1] for found in fitted])),
        importance=importance,
    )


def _predict(
    codes: np.ndarray, factor: np.ndarray, categories: bool, seed: int
) -> tuple[np.ndarray, float]:
    """Importance of the latents, and 1 - error / error of the best constant guess."""
    ensemble = import_scikit_learn("ensemble", "disentanglement_completeness_informativeness")
    kind = ensemble.RandomForestClassifier if categories else ensemble.RandomForestRegressor
    # With all latents at each split: where the right one is not among them, others get its part.
    forest = kind(_TREES, min_samples_leaf=_LEAST_LEAF, max_features=1.0, random_state=seed)
    half = len(codes) // 2
    found = forest.fit(codes[:half], factor[:half]).predict(codes[half:])
    if categories:
        error = np.mean(found != factor[half:])
        constant = 1 - np.max(np.unique(factor, return_counts=True)[1]) / len(factor)
    else:
        error, constant = np.mean((found - factor[half:]) ** 2), np.var(factor)
    return forest.feature_importances_, 1 - error / constant


def _concentration(importance: np.ndarray) -> np.ndarray:
    """1 - H(P) / log n of the shares P in each row, of n; 0 for rows of zeros."""
    total = np.sum(importance, axis=1, keepdims=True)
    shares = importance / np.where(total > 0, total, 1)
    # A single share has no entropy, whatever it is divided by.
    most = np.log(max(shares.shape[1], 2))
    return np.where(total[:, 0] > 0, 1 - entropy_of(shares) / most, 0)
