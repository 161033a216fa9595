"""Objectives that pull the aggregate posterior towards the prior by moments or by distances."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.axis import LOCAL, Axis
from vaeflow._util.random import row_keys
from vaeflow.estimators import Aux, context_of, evidence, require, split_rows
from vaeflow.losses.elbo import elbo_metrics

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Factors of the kernel's width: no single one tells distributions apart at all distances."""

PRIOR = 2
"""Number of the draw of the prior among those of a row."""


def dip_vae(
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, Array],
    rng: Array,
    *,
    axis: Axis = LOCAL,
    train: bool = True,
    off_diagonal: Float[Array, ""] | float = 10.0,
    diagonal: Float[Array, ""] | float = 100.0,
    of_samples: bool = False,
    context_key: str | None = None,
) -> tuple[Float[Array, ""], Aux]:
    """Computes the negative ELBO and what covariances of the latents differ from the identity.

    lambda_od sum_(i != j) C_ij^2 + lambda_d sum_i (C_ii - 1)^2, where C is the covariance of the
    posteriors' means over the batch (DIP-VAE I), or that of their samples, which adds the average
    of their variances to its diagonal (DIP-VAE II).

    Source: Kumar, Sattigeri & Balakrishnan 2018, "Variational inference of disentangled latent
    concepts from unlabeled observations", equations 6 and 7.

    Args:
      model: A `vaeflow.models.VAE` with a posterior that knows its mean and variance.
      variables: The model's variables.
      batch: ``{"image": [batch, height, width, channel], ...}``.
      rng: A typed key, or one for each row.
      axis: How the batch is divided; covariances are over all of it.
      train: Unused, as the model behaves alike in training and in evaluation.
      off_diagonal: lambda_od.
      diagonal: lambda_d; ten times lambda_od for the means, as much for the samples, in the paper.
      of_samples: Whether the covariance is that of the samples.
      context_key: Name of the entry of the batch that is the model's context, or None.

    Returns:
      The loss in nats, and the metrics of `elbo` and `penalty`.

    Raises:
      ValueError: If the model has no single posterior.
    """
    del train
    require(model, "posterior")
    found = evidence(model, variables, batch, rng, context_key=context_key)
    metrics = elbo_metrics(found, batch)
    context = context_of(batch, context_key)
    first, _ = split_rows(rng, batch["image"].shape[0])
    values = model.apply(variables, batch["image"], first, method="observe").values
    posterior = model.apply(variables, values, context, method="posterior")
    mean = posterior.mean()
    center = axis.mean(jnp.mean(mean, axis=0))
    covariance = axis.mean(jnp.einsum("bi,bj->ij", mean - center, mean - center) / len(mean))
    if of_samples:
        covariance = covariance + jnp.diag(axis.mean(jnp.mean(posterior.variance(), axis=0)))
    on = jnp.diagonal(covariance)
    off = jnp.sum(covariance**2) - jnp.sum(on**2)
    penalty = off_diagonal * off + diagonal * jnp.sum((on - 1) ** 2)
    return metrics["negative_elbo"] + penalty, Aux(metrics | {"penalty": penalty}, {})


def info_vae(
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, Array],
    rng: Array,
    *,
    axis: Axis = LOCAL,
    train: bool = True,
    alpha: Float[Array, ""] | float = 1.0,
    weight: Float[Array, ""] | float = 10.0,
    context_key: str | None = None,
) -> tuple[Float[Array, ""], Aux]:
    """Computes -E log p(x | z) + (1 - alpha) KL(q(z | x) || p(z)) + weight MMD(q(z), p(z)).

    MMD is the squared maximum mean discrepancy between samples of the posteriors of a batch and as
    many of the prior, with inverse multiquadratic kernels of several widths. alpha = 1 is the
    Wasserstein auto-encoder with that penalty (WAE-MMD). The InfoVAE's lambda is
    weight - alpha + 1.

    Source: Zhao, Song & Ermon 2019, "InfoVAE: balancing learning and inference in variational
    autoencoders", equation 6; Tolstikhin, Bousquet, Gelly & Schoelkopf 2018, "Wasserstein
    auto-encoders", algorithm 2.

    Args:
      model: A `vaeflow.models.VAE`, or a module with its `observe`, `infer`, `likelihood` and
        `prior`.
      variables: The model's variables.
      batch: ``{"image": [batch, height, width, channel], ...}``.
      rng: A typed key, or one for each row.
      axis: How the batch is divided; distances are between rows of all of it.
      train: Unused, as the model behaves alike in training and in evaluation.
      alpha: How much of the KL is left out.
      weight: Weight of the discrepancy.
      context_key: Name of the entry of the batch that is the model's context, or None.

    Returns:
      The loss in nats, and the metrics of `elbo` and `discrepancy`.

    Raises:
      ValueError: If the batch has a single row.
    """
    del train
    found = evidence(model, variables, batch, rng, context_key=context_key)
    metrics = elbo_metrics(found, batch)
    z = axis.gather(found.latents.z[0])

    def draw(key: Array, context: Array | None) -> Array:
        prior = model.apply(variables, context, method="prior")
        return prior.sample(seed=jax.random.fold_in(key, PRIOR))

    # From the keys of the rows, so that the draw is the same however the batch is divided.
    keys = row_keys(rng, batch["image"].shape[0])
    drawn = axis.gather(jax.vmap(draw)(keys, context_of(batch, context_key)))
    discrepancy = maximum_mean_discrepancy(z, drawn)
    loss = metrics["reconstruction"] + (1 - alpha) * metrics["kl"] + weight * discrepancy
    return loss, Aux(metrics | {"discrepancy": discrepancy}, {})


def maximum_mean_discrepancy(
    x: Float[Array, "row dimension"], y: Float[Array, "row dimension"]
) -> Float[Array, ""]:
    """Estimates the squared distance of two distributions from as many samples of each.

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y) with k(a, b) = sum_s C s / (C s + ||a - b||^2),
    C = 2 D, which is the average of ||a - b||^2 for standard normals in D dimensions. The estimate
    is unbiased, and so below zero at times.

    Source: Gretton et al. 2012, "A kernel two-sample test", equation 3.

    Args:
      x: Samples of one distribution.
      y: Samples of the other.

    Raises:
      ValueError: If the shapes differ, or there are fewer than two rows.
    """
    if x.shape != y.shape or len(x) < 2:
        raise ValueError(
            f"x and y must have one shape, of 2 rows or more, got {x.shape} and {y.shape}"
        )
    rows, dimension = x.shape

    def kernel(a: Array, b: Array) -> Array:
        square = jnp.sum((a[:, None] - b[None, :]) ** 2, axis=-1)
        return sum(2 * dimension * s / (2 * dimension * s + square) for s in SCALES)

    within = kernel(x, x) + kernel(y, y)
    # The kernel of a sample with itself is one a scale.
    pairs = (jnp.sum(within) - 2 * len(SCALES) * rows) / (rows * (rows - 1))
    return pairs - 2 * jnp.mean(kernel(x, y))
