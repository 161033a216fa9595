"""Losses: pure functions of a model, its variables, a batch and a key.

Each returns a scalar and an `Aux` of metrics and updated collections.
"""

from vaeflow.losses.aggregate import AggregateLogDensities, aggregate_log_densities
from vaeflow.losses.base import Aux, context_of
from vaeflow.losses.code_bound import CodeBound, code_bound
from vaeflow.losses.cross_entropy import cross_entropy
from vaeflow.losses.elbo import elbo
from vaeflow.losses.evidence import Evidence, evidence
from vaeflow.losses.factor_vae import (
    factor_vae,
    factor_vae_discriminator,
    shuffled_entries,
)
from vaeflow.losses.forward import forward_kl
from vaeflow.losses.importance_weighted import (
    doubly_reparameterized,
    importance_weighted,
    sticking_the_landing,
)
from vaeflow.losses.likelihood import negative_log_likelihood
from vaeflow.losses.moments import dip_vae, info_vae, maximum_mean_discrepancy
from vaeflow.losses.munit import munit, munit_discriminator
from vaeflow.losses.reconstruction import reconstruction
from vaeflow.losses.reverse import reverse_kl, reverse_kl_terms
from vaeflow.losses.schedules import cyclic_schedule, linear_schedule
from vaeflow.losses.total_correlation import beta_tcvae, hfvae
from vaeflow.losses.vq_vae import CodeEvidence, code_evidence, vq_vae

__all__ = [
    "AggregateLogDensities",
    "Aux",
    "CodeBound",
    "CodeEvidence",
    "Evidence",
    "aggregate_log_densities",
    "beta_tcvae",
    "code_bound",
    "code_evidence",
    "context_of",
    "cross_entropy",
    "cyclic_schedule",
    "dip_vae",
    "doubly_reparameterized",
    "elbo",
    "evidence",
    "factor_vae",
    "factor_vae_discriminator",
    "forward_kl",
    "hfvae",
    "importance_weighted",
    "info_vae",
    "linear_schedule",
    "maximum_mean_discrepancy",
    "munit",
    "munit_discriminator",
    "negative_log_likelihood",
    "reconstruction",
    "reverse_kl",
    "reverse_kl_terms",
    "shuffled_entries",
    "sticking_the_landing",
    "vq_vae",
]
