"""Disentanglement by the information of latents about factors: MIG, modularity, SAP and DCI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from vaeflow.metrics._inputs import as_representation, import_scikit_learn, mean_gap, ranks
from vaeflow.metrics.samples import entropy_of


def mutual_information_matrix(
    codes: Float[np.ndarray, "example latent"],
    factors: Int[np.ndarray, "example factor"],
    num_bins: int = 20,
) -> Float[np.ndarray, "latent factor"]:
    """Computes the mutual information I(z_i; v_k) of each binned latent and each factor, in nats.

    The bins are of equal width, from the least to the largest value of a latent; each value of a
    factor is a class, as for published scores. Scores of other bins, such as ones of equal
    frequency, or of another number of them, are not comparable.

    It is the information in the histogram, between 0 and the entropy of the factor, and too high by
    about (bins - 1) (values - 1) / (2 examples) where the two are independent: 0.04 for 20 bins, 40
    values and 10,000 examples. Smaller differences mean nothing.

    Args:
      codes: Posterior means; each latent in any units.
      factors: Ground-truth factors of the examples.
      num_bins: Number of bins of a latent, at least 2.

    Raises:
      ValueError: If `codes` or `factors` have wrong shapes, codes aren't finite, factors aren't
        integers or one is constant, or there are too few bins.
    """
    codes, factors = as_representation(codes, factors)
    if num_bins < 2:
        raise ValueError(f"num_bins must be at least 2, got {num_bins}")
    latents = [_bin_indices(latent, num_bins) for latent in codes.T]
    values = [_value_indices(factor) for factor in factors.T]
    return np.array([[_information(latent, factor) for factor in values] for latent in latents])


def mutual_information_gap(
    codes: Float[np.ndarray, "example latent"],
    factors: Int[np.ndarray, "example factor"],
    num_bins: int = 20,
) -> float:
    """Computes the mutual information gap (MIG): mean_k [I(z_(1); v_k) - I(z_(2); v_k)] / H(v_k).

    z_(1) and z_(2) are the latents with the most and second most information about a factor. From
    0 to 1. It is 1 if each factor is known from one latent and from no other, which takes as many
    bins as values; 20 bins of a factor with n > 20 values leave about log 20 / log n of it. Of
    useless latents it is about 0, as it is where two latents have the same information. For a
    single latent the second term is 0.

    Chen et al. integrate over q(z | x) of the full data set. Here the latents are the posterior
    means, in bins (see `mutual_information_matrix`), as in Locatello et al. 2019: that takes no
    density, so any representation has this score, and most published numbers are of it. It ignores
    the noise of the posterior.

    Source: Chen, Li, Grosse & Duvenaud 2018, "Isolating sources of disentanglement in VAEs",
    equation 6; Locatello et al. 2019, "Challenging common assumptions in the unsupervised learning
    of disentangled representations", appendix B.

    Args:
      codes: As for `mutual_information_matrix`.
      factors: As for `mutual_information_matrix`.
      num_bins: As for `mutual_information_matrix`.

    Raises:
      ValueError: As `mutual_information_matrix`.
    """
    information = mutual_information_matrix(codes, factors, num_bins)
    values = [_value_indices(factor) for factor in np.asarray(factors).T]
    return mean_gap(information / [_information(factor, factor) for factor in values])


def _bin_indices(latent: np.ndarray, num_bins: int) -> np.ndarray:
    """Returns the bin of each value; a constant latent has one bin."""
    low, high = np.min(latent), np.max(latent)
    if low == high:
        return np.zeros(len(latent), np.int64)
    # Halves, so that the widest range doesn't overflow.
    share = (latent / 2 - low / 2) / (high / 2 - low / 2)
    return np.minimum((num_bins * share).astype(np.int64), num_bins - 1)


def _value_indices(factor: np.ndarray) -> np.ndarray:
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


def modularity(
    codes: Float[np.ndarray, "example latent"],
    factors: Int[np.ndarray, "example factor"],
    num_bins: int = 20,
) -> float:
    """Computes the modularity: mean_i [1 - sum_(k != m) I_ik^2 / (I_im^2 (K - 1))].

    I_ik is the mutual information of latent i and factor k, out of K, and m the factor that the
    latent is most informative about. From 0 to 1. It is 1 if each latent has information about one
    factor only, even if others have the same or some factor is in no latent, and 0 if all are
    equally informative about all factors. Latents without information, such as constant ones,
    don't count; without any other the score is 0. There is no chance level: for noise the score is
    that of the bias of the information, which is larger for factors of more values, so that useless
    latents may score highly. Read it together with a score of how informative the latents are.

    Source: Ridgeway & Mozer 2018, "Learning deep disentangled embeddings with the F-statistic
    loss", section 3.

    Args:
      codes: As for `vaeflow.metrics.mutual_information_matrix`.
      factors: As for `vaeflow.metrics.mutual_information_matrix`.
      num_bins: As for `vaeflow.metrics.mutual_information_matrix`.

    Raises:
      ValueError: As `vaeflow.metrics.mutual_information_matrix`.
    """
    information = mutual_information_matrix(codes, factors, num_bins)
    informative = information[np.max(information, axis=1) > 0]
    if len(informative) == 0:
        return 0.0
    shares = informative / np.max(informative, axis=1, keepdims=True)
    # The largest share is 1. A single factor has no others.
    deviations = (np.sum(shares**2, axis=1) - 1) / max(shares.shape[1] - 1, 1)
    return float(np.mean(1 - deviations))


def separated_attribute_predictability(
    codes: Float[np.ndarray, "example latent"],
    factors: Int[np.ndarray, "example factor"],
    *,
    categorical: Sequence[int] = (),
) -> float:
    """Computes the separated attribute predictability (SAP): mean_k S_(1)k - S_(2)k.

    S_ik measures how well latent i alone predicts factor k, and (1), (2) are the best two latents.
    For a factor of numbers it is the R^2 of a linear regression. For one of n categories it is the
    balanced accuracy of n - 1 thresholds on the latent (a decision tree, fitted and measured on
    the same examples). Constant latents have S = 0, and so has the second of a single latent.

    From 0 to 1. A factor of numbers gives 1 if one latent is linear in it and no other correlates
    with it; a category with n values gives up to 1 - 1/n, as useless latents guess right in one of
    n cases. Of useless latents the score is about 0. A number that a latent follows along a curve,
    such as an angle, gives less.

    Scores aren't comparable with those of disentanglement_lib (Locatello et al. 2019, "Challenging
    common assumptions in the unsupervised learning of disentangled representations"): by default it
    takes all factors for categories, numbers too, each classified by a linear support vector
    machine on one latent, and counts correct ones among other examples, unbalanced.

    Source: Kumar, Sattigeri & Balakrishnan 2018, "Variational inference of disentangled latent
    concepts from unlabeled observations", section 3. They set S to 0 for latents of a variance
    below 0.05, which depends on the latents' units.

    Args:
      codes: Posterior means; each latent in any units.
      factors: Ground-truth factors of the examples.
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


_TREES = 50

# Smaller leaves learn the noise of factors that can't be predicted in full, and share its
# importance out among all latents.
_LEAST_LEAF = 5


class PredictorImportance(NamedTuple):
    """Disentanglement, completeness and informativeness (DCI), with the importance matrix.

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
      codes: Posterior means; each latent in any units.
      factors: Ground-truth factors of the examples.
      categorical: Columns of `factors` whose order means nothing, such as shapes.
      seed: Seed of the halves and of the forests.

    Raises:
      ValueError: If `codes` or `factors` have wrong shapes, codes aren't finite, factors aren't
        integers or one is constant, a column isn't there, or scikit-learn is missing.
    """
    codes, factors = as_representation(codes, factors, categorical)
    order = np.random.default_rng(seed).permutation(len(codes))
    predictions = [
        _predict(ranks(codes)[order], factor[order], column in categorical, seed)
        for column, factor in enumerate(factors.T)
    ]
    importance = np.stack([importance for importance, _ in predictions], axis=1)
    by_latent = np.sum(importance, axis=1)
    return PredictorImportance(
        disentanglement=float(
            np.sum(by_latent * _concentration(importance)) / max(np.sum(by_latent), 1e-300)
        ),
        completeness=float(np.mean(_concentration(importance.T))),
        informativeness=float(np.mean([score for _, score in predictions])),
        importance=importance,
    )


def _predict(
    codes: np.ndarray, factor: np.ndarray, categories: bool, seed: int
) -> tuple[np.ndarray, float]:
    """Importance of the latents, and 1 - error / error of the best constant guess."""
    ensemble = import_scikit_learn("ensemble", "disentanglement_completeness_informativeness")
    kind = ensemble.RandomForestClassifier if categories else ensemble.RandomForestRegressor
    # With all latents at each split: otherwise others share the importance of the right one.
    forest = kind(_TREES, min_samples_leaf=_LEAST_LEAF, max_features=1.0, random_state=seed)
    half = len(codes) // 2
    predicted = forest.fit(codes[:half], factor[:half]).predict(codes[half:])
    if categories:
        error = np.mean(predicted != factor[half:])
        constant = 1 - np.max(np.unique(factor, return_counts=True)[1]) / len(factor)
    else:
        error, constant = np.mean((predicted - factor[half:]) ** 2), np.var(factor)
    return forest.feature_importances_, 1 - error / constant


def _concentration(importance: np.ndarray) -> np.ndarray:
    """1 - H(P) / log n of the shares P in each row, of n; 0 for rows of zeros."""
    total = np.sum(importance, axis=1, keepdims=True)
    shares = importance / np.where(total > 0, total, 1)
    # A single share has no entropy, whatever it is divided by.
    most = np.log(max(shares.shape[1], 2))
    return np.where(total[:, 0] > 0, 1 - entropy_of(shares) / most, 0)
