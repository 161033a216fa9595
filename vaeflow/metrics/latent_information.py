"""What latents tell of the examples of a data set, and how far their distribution is off."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from vaeflow.distributions import per_dim_log_prob
from vaeflow.losses.aggregate import aggregate_log_densities
from vaeflow.losses.evidence import split_rows


class LatentInformation(NamedTuple):
    """The KL of the posteriors of a data set in two parts, in nats an example.

    Attributes:
      kl: mean_n KL(q(z | x_n) || p(z)), the sum of the other two.
      mutual_information: I(n; z), what a latent tells of which example it is of: from 0, where
        posteriors have collapsed, to log N, where no two overlap.
      marginal_kl: KL(q(z) || p(z)), how far the aggregate posterior is from the prior.
    """

    kl: Float[Array, ""]
    mutual_information: Float[Array, ""]
    marginal_kl: Float[Array, ""]


def latent_information(
    model: nn.Module,
    variables: dict[str, Any],
    images: UInt8[Array, "batch height width channel"],
    rng: Array,
    *,
    chunk: int = 100,
    context: Array | None = None,
) -> LatentInformation:
    """Estimates mean_n KL(q(z | x_n) || p(z)) = I(n; z) + KL(q(z) || p(z)) from a sample a row.

    q(z) = (1/N) sum_n q(z | x_n) is that of the N images given, which therefore are the data set or
    as much of it as I is asked of: I is at most log N. Each sample meets all N posteriors, N^2
    densities, so that q(z) is exact and the mean over samples the only error; estimates of parts
    near zero may fall below it. Pure, for use within compiled functions. The encoder sees all
    images at once; beyond that memory grows with N times the chunk.

    Source: Hoffman & Johnson 2016, "ELBO surgery: yet another way to carve up the variational
    evidence lower bound".

    Args:
      model: A `vaeflow.models.VAE`, or a module with its `observe`, `posterior` and `prior`, and
        `infer`. A posterior that is a flow must have an inverse.
      variables: The model's variables.
      images: Images of dtype uint8, two or more.
      rng: A typed key, or one for each row.
      chunk: Number of samples that meet the posteriors at a time.
      context: Labels ``[batch]``, or None. A prior that takes them is that of each row's label.

    Raises:
      ValueError: If there is one image, or the chunk isn't positive.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    count = images.shape[0]
    first, second = split_rows(rng, count)
    values, _ = model.apply(variables, images, first, method="observe")
    posterior = model.apply(variables, values, context, method="posterior")
    prior = model.apply(variables, context, method="prior")
    z = model.apply(variables, values, second, 1, context, method="infer").z[0]
    rows = jnp.arange(count)

    def log_aggregate(row: Array) -> Array:
        same = (row == rows)[None]
        return aggregate_log_densities(posterior, z[row][None], same, count).joint[0]

    log_q = jax.lax.map(log_aggregate, rows, batch_size=chunk)
    information = jnp.mean(_log_prob(posterior, z) - log_q)
    marginal = jnp.mean(log_q - _log_prob(prior, z))
    return LatentInformation(information + marginal, information, marginal)


def _log_prob(distribution, z: Array) -> Array:
    return sum(jnp.sum(value, axis=-1) for value in per_dim_log_prob(distribution, z).values())
