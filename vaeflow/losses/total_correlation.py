"""Objectives that take the KL of a variational auto-encoder apart."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.axis import LOCAL, Axis
from vaeflow.distributions.grouped import per_dim_kl, per_dim_log_prob
from vaeflow.estimators import Aux, aggregate_log_densities, context_of, require, split_rows

Parts = dict[str, Array]


def hfvae(
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, Array],
    rng: Array,
    *,
    axis: Axis = LOCAL,
    train: bool = True,
    dataset_size: Array | int,
    alpha: Float[Array, ""] | float = 1.0,
    beta: Float[Array, ""] | float = 1.0,
    gamma: Float[Array, ""] | float = 1.0,
    context_key: str | None = None,
) -> tuple[Float[Array, ""], Aux]:
    """Computes the mean of the hierarchically factorised objective, from one sample a row.

    -E log p(x | z) + sum_d KL(q(z_d) || p(z_d)) + gamma sum_g [TC of the entries of group g]
    + alpha I(x; z) + beta [TC of the groups], with TC = E log q(z) - log prod q(z_i), over the
    aggregate posterior q(z). With all weights one it is the negative ELBO. The groups are those of
    the model's posterior (`vaeflow.encoders.GroupedPosterior`), discrete ones included.

    The prior must have the groups and independent entries of the posterior, so that its own total
    correlations are zero. Aggregate densities are estimated within the batch.

    Source: Esmaeili et al. 2019, "Structured disentangled representations", equation 5.

    Args:
      model: A `vaeflow.models.VAE` whose posterior and prior have independent entries.
      variables: The model's variables.
      batch: ``{"image": [batch, height, width, channel], "index": [batch], ...}``; rows are told
        apart by their index.
      rng: A typed key, or one for each row.
      axis: How the batch is divided; aggregate densities are those of all of it.
      train: Unused, as the model behaves alike in training and in evaluation.
      dataset_size: Number of examples that the batch was drawn from.
      alpha: Weight of the mutual information.
      beta: Weight of the total correlation between groups.
      gamma: Weight of the total correlations within groups.
      context_key: Name of the entry of the batch that is the model's context, or None.

    Returns:
      The loss in nats, and the metrics `negative_elbo`, `reconstruction`, `kl`,
      `mutual_information`, `total_correlation` (between groups), `total_correlation/NAME` (within
      each group of several entries), `dimension_wise_kl`, `kl/NAME` of each group where there are
      several, in nats an example, and `bits_per_dim`.

    Raises:
      ValueError: If the model has no single posterior, posterior or prior have no independent
        entries, or the batch has one row.
    """
    del train
    parts = _parts(model, variables, batch, rng, axis, dataset_size, context_key)
    within = sum(value for name, value in parts.items() if name.startswith("total_correlation/"))
    loss = (
        parts["reconstruction"]
        + parts["dimension_wise_kl"]
        + gamma * within
        + alpha * parts["mutual_information"]
        + beta * parts["total_correlation"]
    )
    return loss, Aux(parts, {})


def beta_tcvae(
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, Array],
    rng: Array,
    *,
    axis: Axis = LOCAL,
    train: bool = True,
    dataset_size: Array | int,
    alpha: Float[Array, ""] | float = 1.0,
    beta: Float[Array, ""] | float = 1.0,
    gamma: Float[Array, ""] | float = 1.0,
    context_key: str | None = None,
) -> tuple[Float[Array, ""], Aux]:
    """Computes the mean of the beta-TCVAE's objective, from one sample a row.

    -E log p(x | z) + alpha I(x; z) + beta TC + gamma sum_d KL(q(z_d) || p(z_d)). The total
    correlation is that of all entries, whatever their groups. With all weights one it is the
    negative ELBO.

    Source: Chen, Li, Grosse & Duvenaud 2018, "Isolating sources of disentanglement in VAEs",
    equation 4, with the aggregate posterior estimated as for `hfvae`.

    Args:
      model: As for `hfvae`.
      variables: As for `hfvae`.
      batch: As for `hfvae`.
      rng: As for `hfvae`.
      axis: As for `hfvae`.
      train: As for `hfvae`.
      dataset_size: As for `hfvae`.
      alpha: Weight of the mutual information.
      beta: Weight of the total correlation.
      gamma: Weight of the KLs of the entries.
      context_key: As for `hfvae`.

    Returns:
      As `hfvae`.

    Raises:
      ValueError: As `hfvae`.
    """
    del train
    parts = _parts(model, variables, batch, rng, axis, dataset_size, context_key)
    total = sum(value for name, value in parts.items() if name.startswith("total_correlation"))
    loss = (
        parts["reconstruction"]
        + alpha * parts["mutual_information"]
        + beta * total
        + gamma * parts["dimension_wise_kl"]
    )
    return loss, Aux(parts, {})


def _parts(model, variables, batch, rng, axis, dataset_size, context_key) -> Parts:
    """The parts of the negative ELBO, averaged over the rows at hand."""
    require(model, "posterior")
    images, context = batch["image"], context_of(batch, context_key)
    first, second = split_rows(rng, images.shape[0])
    values, log_det = model.apply(variables, images, first, method="observe")
    posterior = model.apply(variables, values, context, method="posterior")
    prior = model.apply(variables, context, method="prior")
    kl = per_dim_kl(posterior, prior)
    log_p = per_dim_log_prob(prior, posterior.mean())
    log_q = per_dim_log_prob(posterior, posterior.mean())
    if {name: value.shape[-1] for name, value in log_p.items()} != {
        name: value.shape[-1] for name, value in log_q.items()
    } or set(kl) != set(log_q):
        raise ValueError(
            "total correlations are defined for posteriors and priors of the same independent "
            f"entries, normal or Concrete; got {posterior.name} and {prior.name}"
        )
    latents = model.apply(variables, values, second, 1, context, method="infer")
    z = latents.z[0]
    likelihood = model.apply(variables, z, context, method="likelihood")
    reconstruction = -jnp.mean(likelihood.log_prob(values) + log_det)
    index = batch["index"]
    same = index[:, None] == axis.gather(index)[None, :]
    densities = aggregate_log_densities(axis.gather(posterior), z, same, dataset_size)
    own = sum(jnp.sum(value, axis=-1) for value in per_dim_log_prob(posterior, z).values())
    of_prior = per_dim_log_prob(prior, z)
    parts = {
        "reconstruction": reconstruction,
        "mutual_information": jnp.mean(own - densities.joint),
        "total_correlation": jnp.mean(densities.joint - sum(densities.groups.values())),
        "dimension_wise_kl": sum(
            jnp.mean(jnp.sum(densities.entries[name] - of_prior[name], axis=-1))
            for name in of_prior
        ),
    }
    for name, entries in densities.entries.items():
        if entries.shape[-1] > 1:
            within = densities.groups[name] - jnp.sum(entries, axis=-1)
            parts[f"total_correlation/{name}"] = jnp.mean(within)
    by_group = {f"kl/{name}": jnp.mean(jnp.sum(value, axis=-1)) for name, value in kl.items()}
    if len(by_group) > 1:
        parts |= by_group
    parts["kl"] = sum(by_group.values())
    parts["negative_elbo"] = reconstruction + parts["kl"]
    dimensions = math.prod(images.shape[1:])
    return parts | {"bits_per_dim": parts["negative_elbo"] / (dimensions * math.log(2))}
