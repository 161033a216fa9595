"""Measures of models, and the plain densities to hold them against.

They compute in float64 with numpy, outside of JAX; only those of importance weights, and those that
take a model, are functions to compile.
"""

from vaeflow.metrics.agreement import agreement
from vaeflow.metrics.annealed_importance import annealed_importance_log_likelihood
from vaeflow.metrics.attribute_predictability import separated_attribute_predictability
from vaeflow.metrics.beta_vae import beta_vae_score
from vaeflow.metrics.bits import bits_per_dim
from vaeflow.metrics.clusters import cluster_accuracy
from vaeflow.metrics.codes import code_perplexity, live_codes
from vaeflow.metrics.disentanglement import disentanglement_scores
from vaeflow.metrics.entropy import label_entropy
from vaeflow.metrics.factor_vae import factor_vae_score
from vaeflow.metrics.frechet import frechet_distance
from vaeflow.metrics.gaussian import (
    DiagonalGaussianBaseline,
    ShrunkGaussianBaseline,
    fit_diagonal_gaussian,
    fit_shrunk_gaussian,
)
from vaeflow.metrics.importance import (
    ImportanceDiagnostics,
    TargetDiagnostics,
    importance_diagnostics,
    target_diagnostics,
)
from vaeflow.metrics.inception_score import conditional_inception_score, inception_score
from vaeflow.metrics.latent_information import LatentInformation, latent_information
from vaeflow.metrics.latents import active_units
from vaeflow.metrics.linear_predictor import LinearPredictorBaseline, fit_linear_predictor
from vaeflow.metrics.marginal_likelihood import importance_weighted_log_likelihood
from vaeflow.metrics.modularity import modularity
from vaeflow.metrics.mutual_information import mutual_information_gap, mutual_information_matrix
from vaeflow.metrics.neighbors import nearest_neighbors
from vaeflow.metrics.perceptual_distance import diversity, perceptual_distance
from vaeflow.metrics.predictor_importance import (
    PredictorImportance,
    disentanglement_completeness_informativeness,
)
from vaeflow.metrics.quadrature import expectation, log_integral

__all__ = [
    "DiagonalGaussianBaseline",
    "ImportanceDiagnostics",
    "LatentInformation",
    "LinearPredictorBaseline",
    "PredictorImportance",
    "ShrunkGaussianBaseline",
    "TargetDiagnostics",
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
    "importance_diagnostics",
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
    "target_diagnostics",
]
