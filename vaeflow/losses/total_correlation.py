"""Objectives that decompose the KL of a VAE: mutual information, total correlation, dimensions.

`hfvae` and `beta_tcvae` weight the same five terms differently. The decomposition is that of
Chen et al. 2018 with groups of latents, by Esmaeili et al. 2019.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.arrays import LOCAL, Axis
from vaeflow._util.checks import check_number, entry, require
from vaeflow.distributions.grouped import per_dim_log_prob
from vaeflow.estimators import aggregate_log_densities, evidence
from vaeflow.losses.elbo import bits_of
from vaeflow.typing import Aux


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

    -E log p(x | z) + sum_d KL(q(z_d) || p(z_d)) + gamma sum_g [TC of the dimensions of group g]
    + alpha I(x; z) + beta [TC of the groups], with TC = E log q(z) - log prod q(z_i), over the
    aggregate posterior q(z). With all weights one it is the negative ELBO. The groups are those of
    the model's posterior (`vaeflow.encoders.GroupedPosterior`), discrete ones included.

    The prior must have the groups and independent dimensions of the posterior, so that its own
    total correlations are zero. Aggregate densities are estimated within the batch.

    Source: Esmaeili et al. 2019, "Structured disentangled representations", equation 5.

    Args:
      model: A `vaeflow.models.VAE` whose posterior and prior have independent dimensions.
      batch: Holds "index", ``[batch]``, too: rows of equal index are the same example.
      dataset_size: Number of examples that the batch was sampled from.
      alpha: Weight of the mutual information.
      beta: Weight of the total correlation between groups.
      gamma: Weight of the total correlations within groups.

    Returns:
      The loss, and the metrics `negative_elbo`, `reconstruction`, `kl`, `mutual_information`,
      `total_correlation` (between groups), `total_correlation/NAME` (within each group of several
      dimensions), `dimension_wise_kl`, `kl/NAME` of each group where there are several, and
      `bits_per_dim`.

    Raises:
      ValueError: If the model has no single posterior, posterior or prior have no independent
        dimensions, the batch has one row, or a weight is below zero.
    """
    del train
    alpha, beta, gamma = _weights(alpha=alpha, beta=beta, gamma=gamma)
    terms = _decompose(model, variables, batch, rng, axis, dataset_size, context_key)
    loss = (
        terms.reconstruction
        + terms.dimension_wise_kl
        + gamma * sum(terms.within_groups.values())
        + alpha * terms.mutual_information
        + beta * terms.between_groups
    )
    return loss, Aux(terms.metrics(), {})


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
    correlation is that of all dimensions, whatever their groups. With all weights one it is the
    negative ELBO. Model, batch, `dataset_size`, metrics and errors are those of `hfvae`.

    Source: Chen, Li, Grosse & Duvenaud 2018, "Isolating sources of disentanglement in VAEs",
    equation 4, with the aggregate posterior estimated as for `hfvae`.

    Args:
      alpha: Weight of the mutual information.
      beta: Weight of the total correlation.
      gamma: Weight of the KLs of the dimensions.
    """
    del train
    alpha, beta, gamma = _weights(alpha=alpha, beta=beta, gamma=gamma)
    terms = _decompose(model, variables, batch, rng, axis, dataset_size, context_key)
    loss = (
        terms.reconstruction
        + alpha * terms.mutual_information
        + beta * (terms.between_groups + sum(terms.within_groups.values()))
        + gamma * terms.dimension_wise_kl
    )
    return loss, Aux(terms.metrics(), {})


class _Terms(NamedTuple):
    """Terms of the negative ELBO in nats, averaged over the rows at hand.

    Attributes:
      reconstruction: -E log p(x | z).
      mutual_information: I(x; z).
      between_groups: The total correlation of the groups.
      within_groups: Those of the dimensions of each group of several, by name.
      dimension_wise_kl: sum_d KL(q(z_d) || p(z_d)).
      kl: The exact KL(q(z | x) || p(z)) of each group by name.
      bits: D log 2, the divisor of nats for bits per dimension.
    """

    reconstruction: Float[Array, ""]
    mutual_information: Float[Array, ""]
    between_groups: Float[Array, ""]
    within_groups: dict[str, Float[Array, ""]]
    dimension_wise_kl: Float[Array, ""]
    kl: dict[str, Float[Array, ""]]
    bits: float

    def metrics(self) -> dict[str, Float[Array, ""]]:
        """Names the terms; see `hfvae`."""
        kl = sum(self.kl.values())
        negative_elbo = self.reconstruction + kl
        by_group = self.kl if len(self.kl) > 1 else {}
        return {
            "reconstruction": self.reconstruction,
            "mutual_information": self.mutual_information,
            "total_correlation": self.between_groups,
            "dimension_wise_kl": self.dimension_wise_kl,
            **{f"total_correlation/{name}": value for name, value in self.within_groups.items()},
            **{f"kl/{name}": value for name, value in by_group.items()},
            "kl": kl,
            "negative_elbo": negative_elbo,
            "bits_per_dim": negative_elbo / self.bits,
        }


def _weights(**weights: Float[Array, ""] | float) -> list[Float[Array, ""] | float]:
    return [check_number(name, weight, 0) for name, weight in weights.items()]


def _decompose(model, variables, batch, rng, axis, dataset_size, context_key) -> _Terms:
    """Computes the terms of a batch."""
    require(model, "posterior")
    index = entry(batch, "index")
    sampled = evidence(model, variables, batch, rng, context_key=context_key)
    posterior, prior = sampled.latents.posterior, sampled.latents.prior
    kl, z = sampled.latents.kl, sampled.latents.z[0]
    log_q, log_p = per_dim_log_prob(posterior, z), per_dim_log_prob(prior, z)
    if _sizes(log_q) != _sizes(log_p) or kl.keys() != log_q.keys():
        raise ValueError(
            "total correlations are defined for posteriors and priors of the same independent "
            f"dimensions, normal or Concrete; got {posterior.name} and {prior.name}"
        )
    same = index[:, None] == axis.gather(index)[None, :]
    aggregate = aggregate_log_densities(axis.gather(posterior), z, same, dataset_size)
    conditional = sum(jnp.sum(value, axis=-1) for value in log_q.values())
    return _Terms(
        reconstruction=-jnp.mean(sampled.log_likelihood),
        mutual_information=jnp.mean(conditional - aggregate.joint),
        between_groups=jnp.mean(aggregate.joint - sum(aggregate.groups.values())),
        within_groups={
            name: jnp.mean(aggregate.groups[name] - jnp.sum(value, axis=-1))
            for name, value in aggregate.dimensions.items()
            if value.shape[-1] > 1
        },
        dimension_wise_kl=sum(
            jnp.mean(jnp.sum(aggregate.dimensions[name] - value, axis=-1))
            for name, value in log_p.items()
        ),
        kl={name: jnp.mean(jnp.sum(value, axis=-1)) for name, value in kl.items()},
        bits=bits_of(sampled.values),
    )


def _sizes(log_prob: dict[str, Array]) -> dict[str, int]:
    return {name: value.shape[-1] for name, value in log_prob.items()}
