"""Metrics of models, and baseline densities to compare them with.

They compute in float64 with numpy, outside of JAX; only those that take a model are functions to
compile. Likelihoods are in nats.
"""

from vaeflow.metrics.annealed_importance import annealed_importance_log_likelihood
from vaeflow.metrics.baselines import (
    DiagonalGaussianBaseline,
    LinearPredictorBaseline,
    ShrunkGaussianBaseline,
    fit_diagonal_gaussian,
    fit_linear_predictor,
    fit_shrunk_gaussian,
)
from vaeflow.metrics.codes import cluster_accuracy, code_perplexity, live_codes
from vaeflow.metrics.disentanglement import disentanglement_scores
from vaeflow.metrics.informativeness import (
    PredictorImportance,
    disentanglement_completeness_informativeness,
    modularity,
    mutual_information_gap,
    mutual_information_matrix,
    separated_attribute_predictability,
)
from vaeflow.metrics.interventions import beta_vae_score, factor_vae_score
from vaeflow.metrics.likelihood import (
    LatentInformation,
    active_units,
    bits_per_dim,
    importance_weighted_log_likelihood,
    latent_information,
)
from vaeflow.metrics.quadrature import expectation, log_integral
from vaeflow.metrics.samples import (
    agreement,
    conditional_inception_score,
    diversity,
    frechet_distance,
    inception_score,
    label_entropy,
    nearest_neighbors,
    perceptual_distance,
)

__all__ = [
    "DiagonalGaussianBaseline",
    "LatentInformation",
    "LinearPredictorBaseline",
    "PredictorImportance",
    "ShrunkGaussianBaseline",
    "active_units",
    "agreement",
    "annealed_importance_log_likelihood",
    "beta_vae_score",
    "bits_per_dim",
    "cluster_accuracy",
    "code_perplexity",
    "conditional_inception_score",
    "disentanglement_completeness_informativeness",
    "disentanglement_scores",
    "diversity",
    "expectation",
    "factor_vae_score",
    "fit_diagonal_gaussian",
    "fit_linear_predictor",
    "fit_shrunk_gaussian",
    "frechet_distance",
    "importance_weighted_log_likelihood",
    "inception_score",
    "label_entropy",
    "latent_information",
    "live_codes",
    "log_integral",
    "modularity",
    "mutual_information_gap",
    "mutual_information_matrix",
    "nearest_neighbors",
    "perceptual_distance",
    "separated_attribute_predictability",
]
