"""What importance weights say about the density that they come from."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class ImportanceDiagnostics(NamedTuple):
    """How well one density stands in for another, from n samples of it.

    Attributes:
      log_normalizer: log (1/n) sum_i w_i, an estimate of log Z in nats, low on average.
      effective_sample_size: (sum_i w_i)^2 / (n sum_i w_i^2), from 1/n to 1: the share of the
        samples that independent ones of the target would be worth. It only knows the modes that
        were sampled.
      largest_weight: max_i w_i / sum_i w_i, the share of one sample in every estimate.
    """

    log_normalizer: Float[Array, ""]
    effective_sample_size: Float[Array, ""]
    largest_weight: Float[Array, ""]


def importance_diagnostics(log_weights: Float[Array, "sample"]) -> ImportanceDiagnostics:
    """Computes diagnostics of the weights w_i = p~(x_i) / q(x_i) at samples x_i of q.

    p~ is an unnormalised density with integral Z. Pure, for use within compiled functions. A
    sample where p~ is zero has the log-weight -inf; without any other the shares are zero.

    Args:
      log_weights: log p~(x_i) - log q(x_i) in nats, of shape ``[sample]``.

    Raises:
      ValueError: If there is no sample or more than one axis.
    """
    log_weights = _checked(log_weights)
    largest = jnp.max(log_weights)
    # All weights may be zero: nothing to divide by.
    reference = jnp.where(largest == -jnp.inf, 0.0, largest)
    weights = jnp.exp(log_weights - reference)
    total, squares = jnp.sum(weights), jnp.sum(weights**2)
    none = total == 0
    size = log_weights.size
    return ImportanceDiagnostics(
        log_normalizer=jax.nn.logsumexp(log_weights) - jnp.log(size),
        effective_sample_size=jnp.where(none, 0.0, total**2 / jnp.where(none, 1.0, squares) / size),
        largest_weight=jnp.where(none, 0.0, jnp.max(weights) / jnp.where(none, 1.0, total)),
    )


class TargetDiagnostics(NamedTuple):
    """How well a density covers another, from samples of that other.

    Attributes:
      log_normalizer: -log (1/n) sum_i 1 / w_i, an estimate of log Z in nats, high on average.
      effective_sample_size: 1 / (mean_i w_i mean_i 1 / w_i), from 0 to 1: what
        `ImportanceDiagnostics` calls so, as seen from the target. It falls where q misses a mode.
    """

    log_normalizer: Float[Array, ""]
    effective_sample_size: Float[Array, ""]


def target_diagnostics(log_weights: Float[Array, "sample"]) -> TargetDiagnostics:
    """Computes diagnostics of the weights w_i = p~(x_i) / q(x_i) at samples x_i of p = p~ / Z.

    Pure, for use within compiled functions. 1 / Z = E_p[1 / w], and the effective sample size of
    samples of q, (E_q w)^2 / E_q[w^2], is Z / E_p[w].

    Args:
      log_weights: log p~(x_i) - log q(x_i) in nats, of shape ``[sample]``.

    Raises:
      ValueError: If there is no sample or more than one axis.

    Source: Midgley, Stimper, Simm, Schoelkopf & Hernandez-Lobato 2023, "Flow Annealed Importance
    Sampling Bootstrap", on the forward effective sample size.
    """
    log_weights = _checked(log_weights)
    log_size = jnp.log(log_weights.size)
    log_normalizer = log_size - jax.nn.logsumexp(-log_weights)
    log_mean = jax.nn.logsumexp(log_weights) - log_size
    return TargetDiagnostics(log_normalizer, jnp.exp(log_normalizer - log_mean))


def _checked(log_weights: Array) -> Float[Array, "sample"]:
    log_weights = jnp.asarray(log_weights)
    if log_weights.ndim != 1 or not log_weights.size:
        raise ValueError(f"log_weights must have shape [sample], got {log_weights.shape}")
    return log_weights.astype(jnp.promote_types(log_weights.dtype, jnp.float32))
