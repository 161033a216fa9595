"""Losses: pure functions of a model, its variables, a batch and a key.

All have one signature, `vaeflow.typing.Loss`, which training relies on; each documents only its
additions::

    loss(model, variables, batch, rng, *, axis=LOCAL, train=True, **weights) -> (scalar, Aux)

Args:
  model: The Flax module. A loss that isn't defined for it raises ValueError.
  variables: The model's variables. Of models of several players, each under its name.
  batch: Arrays by name, rows first: ``{"image": [batch, height, width, channel], ...}``.
  rng: A typed key, or one for each row. Noise of a row depends on its key alone.
  axis: How the batch is divided over devices. Scalar and metrics are means over the rows at hand;
    terms that couple rows (aggregate posteriors, covariances) are those of the whole batch.
  train: Whether the model behaves as in training; most models behave the same in evaluation.
  context_key: Name of the entry of the batch that is the model's context, or None; a keyword of
    the losses of models that have one.
  **weights: Weights of terms and other options, numbers or traced scalars.

Returns:
  The scalar to minimise, and an `Aux`: `metrics`, scalars by name, and `state`, the updated mutable
  collections, {} where there are none. Values are in nats an example unless stated otherwise;
  `bits_per_dim` is nats / (D log 2) for D dimensions of an image.
"""

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
from vaeflow.typing import Aux

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
