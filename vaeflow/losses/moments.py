"""Objectives that match the aggregate posterior to the prior: DIP-VAE and InfoVAE.

The DIP-VAE penalises the covariance of the latents, the InfoVAE a maximum mean discrepancy.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.arrays import LOCAL, Axis, row_keys
from vaeflow._util.checks import check_number, context_of, entry, require
from vaeflow.estimators import evidence
from vaeflow.losses.elbo import elbo_metrics
from vaeflow.typing import Aux

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Factors of the kernel's width: no single one separates distributions at all distances."""

PRIOR = 2
"""Number that is folded into the key of a row to sample the prior."""


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
    """Computes the negative ELBO plus the DIP penalty on the covariance of the latents.

    lambda_od sum_(i != j) C_ij^2 + lambda_d sum_i (C_ii - 1)^2, where C is the covariance of the
    posteriors' means over the batch (DIP-VAE I), or that of their samples, which adds the average
    of their variances to its diagonal (DIP-VAE II).

    Source: Kumar, Sattigeri & Balakrishnan 2018, "Variational inference of disentangled latent
    concepts from unlabeled observations", equations 6 and 7.

    Args:
      model: A `vaeflow.models.VAE` with a posterior that knows its mean and variance.
      off_diagonal: lambda_od.
      diagonal: lambda_d; in the paper ten times lambda_od for the means, equal to it for samples.
      of_samples: Whether the covariance is that of the samples (II).

    Returns:
      The loss, and the metrics of `elbo` and `penalty`.

    Raises:
      ValueError: If the model has no single posterior.
    """
    del train
    require(model, "posterior")
    off_diagonal = check_number("off_diagonal", off_diagonal, 0)
    diagonal = check_number("diagonal", diagonal, 0)
    terms = evidence(model, variables, batch, rng, context_key=context_key)
    metrics = elbo_metrics(terms)
    posterior = terms.latents.posterior
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
      alpha: Share of the KL that is left out.
      weight: Weight of the discrepancy.

    Returns:
      The loss, and the metrics of `elbo` and `discrepancy`.

    Raises:
      ValueError: If the batch has a single row.
    """
    del train
    alpha, weight = check_number("alpha", alpha), check_number("weight", weight, 0)
    terms = evidence(model, variables, batch, rng, context_key=context_key)
    metrics = elbo_metrics(terms)
    z = axis.gather(terms.latents.z[0])

    def sample(key: Array, context: Array | None) -> Array:
        prior = model.apply(variables, context=context, method="prior")
        return prior.sample(seed=jax.random.fold_in(key, PRIOR))

    # From the keys of the rows, so that samples are the same however the batch is divided.
    keys = row_keys(rng, entry(batch, "image").shape[0])
    of_prior = axis.gather(jax.vmap(sample)(keys, context_of(batch, context_key)))
    discrepancy = maximum_mean_discrepancy(z, of_prior)
    loss = metrics["reconstruction"] + (1 - alpha) * metrics["kl"] + weight * discrepancy
    return loss, Aux(metrics | {"discrepancy": discrepancy}, {})


def maximum_mean_discrepancy(
    x: Float[Array, "row dimension"], y: Float[Array, "row dimension"]
) -> Float[Array, ""]:
    """Estimates the squared maximum mean discrepancy from equally many samples of each.

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
    # k(x, x) = 1 at every scale.
    pairs = (jnp.sum(within) - 2 * len(SCALES) * rows) / (rows * (rows - 1))
    return pairs - 2 * jnp.mean(kernel(x, y))
