"""Losses: pure functions of a model, its variables, a batch and a key.

Each returns a scalar and an `Aux` of metrics and updated collections.
"""

from vaeflow.estimators import Aux
from vaeflow.losses.elbo import elbo, reconstruction
from vaeflow.losses.factor_vae import factor_vae, factor_vae_discriminator
from vaeflow.losses.flow import forward_kl, negative_log_likelihood, reverse_kl
from vaeflow.losses.importance_weighted import (
    doubly_reparameterized,
    importance_weighted,
    sticking_the_landing,
)
from vaeflow.losses.moments import dip_vae, info_vae, maximum_mean_discrepancy
from vaeflow.losses.munit import munit, munit_discriminator
from vaeflow.losses.schedules import cyclic_schedule, linear_schedule
from vaeflow.losses.supervised import cross_entropy
from vaeflow.losses.total_correlation import beta_tcvae, hfvae
from vaeflow.losses.vq_vae import code_bound, vq_vae

__all__ = [
    "Aux",
    "beta_tcvae",
    "code_bound",
    "cross_entropy",
    "cyclic_schedule",
    "dip_vae",
    "doubly_reparameterized",
    "elbo",
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
    "sticking_the_landing",
    "vq_vae",
]
