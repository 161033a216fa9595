"""The aggregate posterior, estimated within a batch."""

from __future__ import annotations

from typing import NamedTuple

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vaeflow.distributions import groups_of, per_dim_log_prob
from vaeflow.distributions.entries import WHOLE, normals_of, pieces_of
from vaeflow.distributions.pairs import pairwise_log_prob


class AggregateLogDensities(NamedTuple):
    """Log-densities of samples under q(z) = (1/N) sum_n q(z | x_n), in nats.

    Attributes:
      joint: log q(z), ``[row]``.
      groups: log q(z^g) of each group by name, ``[row]``.
      entries: log q(z_d) of each entry by group, ``[row, entry]``.
    """

    joint: Float[Array, " row"]
    groups: dict[str, Float[Array, " row"]]
    entries: dict[str, Float[Array, "row entry"]]


def aggregate_log_densities(
    posterior: distrax.Distribution,
    z: Float[Array, "row latent"],
    same: Bool[Array, "row batch"],
    dataset_size: Int[Array, ""] | int,
) -> AggregateLogDensities:
    """Estimates log q(z), and those of its groups and entries, from the posteriors of a batch.

    log q(z_b) is estimated by log[(1/N) q(z_b | x_b) + (N - 1) / (N (B - 1)) sum_(b' != b)
    q(z_b | x_b')]: z_b was drawn from the posterior of x_b, which for that reason has the weight
    that it has in the data, and the rest of the batch stands for the rest of the data. Inside the
    logarithm the estimate is unbiased.

    Weights by position instead of by identity, as in the stratified estimator's published code,
    give the weight 1/N to an arbitrary row.

    Source: Esmaeili et al. 2019, "Structured disentangled representations", appendix on
    estimation; Chen, Li, Grosse & Duvenaud 2018, "Isolating sources of disentanglement in VAEs",
    appendix C.2, for the idea.

    Args:
      posterior: q(. | x_b') of all rows of the batch, ``[batch]`` distributions of vectors.
      z: One sample for each row at hand, all of them or a device's share.
      same: Whether the example of a row at hand is that of a row of the batch.
      dataset_size: Number N of examples of the data.

    Raises:
      ValueError: If the batch has a single row.
    """
    if same.shape[-1] < 2:
        raise ValueError("the batch must hold 2 rows or more to estimate q(z), got 1")
    own = jnp.sum(same, axis=1, keepdims=True)
    others = jnp.maximum(same.shape[1] - own, 1)
    log_size = jnp.log(jnp.asarray(dataset_size, jnp.float32))
    log_others = jnp.log(jnp.maximum(jnp.asarray(dataset_size, jnp.float32) - 1, 1e-30))
    log_weight = jnp.where(same, -jnp.log(own), log_others - jnp.log(others)) - log_size
    log_weight = log_weight.T
    pieces = pieces_of(posterior, z)
    sums, entries = {}, {}
    for name, part in groups_of(posterior).items():
        sums[name], entries[name] = _pairs(part, pieces[name], log_weight)
    return AggregateLogDensities(
        joint=_mixed(sum(sums.values()), log_weight),
        groups={name: _mixed(values, log_weight) for name, values in sums.items()},
        entries=entries,
    )


def _mixed(
    log_density: Float[Array, "batch row"], log_weight: Float[Array, "batch row"]
) -> Float[Array, " row"]:
    return jax.nn.logsumexp(log_weight + log_density, axis=0)


def _pairs(
    part: distrax.Distribution, z: Float[Array, "row latent"], log_weight: Array
) -> tuple[Float[Array, "batch row"], Float[Array, "row entry"]]:
    """Log-densities of all rows under all posteriors, and those of each entry mixed."""
    normal = normals_of(part)
    if normal is None:
        log_density = per_dim_log_prob(part, z[:, None])[WHOLE][..., 0].T
        return log_density, _mixed(log_density, log_weight)[:, None]
    total, entries = pairwise_log_prob(normal, z, lambda entry: _mixed(entry, log_weight))
    return total, entries.T
