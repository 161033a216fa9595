"""Measures of models, and the plain densities to hold them against.

They compute in float64 with numpy, outside of JAX; only those of importance weights are functions
to compile.
"""

from vaeflow.metrics.bits import bits_per_dim
from vaeflow.metrics.clusters import cluster_accuracy
from vaeflow.metrics.gaussian import (
    DiagonalGaussian,
    ShrunkGaussian,
    fit_diagonal_gaussian,
    fit_shrunk_gaussian,
)
from vaeflow.metrics.importance import (
    ImportanceDiagnostics,
    TargetDiagnostics,
    importance_diagnostics,
    target_diagnostics,
)
from vaeflow.metrics.latents import active_units
from vaeflow.metrics.linear_predictor import LinearPredictor, fit_linear_predictor
from vaeflow.metrics.marginal_likelihood import importance_weighted_log_likelihood
from vaeflow.metrics.neighbors import nearest_neighbors
from vaeflow.metrics.quadrature import expectation, log_integral

__all__ = [
    "DiagonalGaussian",
    "ImportanceDiagnostics",
    "LinearPredictor",
    "ShrunkGaussian",
    "TargetDiagnostics",
    "active_units",
    "bits_per_dim",
    "cluster_accuracy",
    "expectation",
    "fit_diagonal_gaussian",
    "fit_linear_predictor",
    "fit_shrunk_gaussian",
    "importance_diagnostics",
    "importance_weighted_log_likelihood",
    "log_integral",
    "nearest_neighbors",
    "target_diagnostics",
]
