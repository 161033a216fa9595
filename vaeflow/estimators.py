"""Monte Carlo estimates that losses and metrics share.

`evidence` samples the posterior and evaluates the model there, `aggregate_log_densities` estimates
log q(z) within a batch, and two functions diagnose importance weights.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vaeflow._util.arrays import row_keys
from vaeflow._util.checks import as_array, check_count, context_of, entry, require
from vaeflow.distributions.gaussian import normals_of, pairwise_log_prob
from vaeflow.distributions.grouped import WHOLE, groups_of, per_dim_log_prob, pieces_of
from vaeflow.models.base import Latents

__all__ = [
    "AggregateLogDensities",
    "Evidence",
    "ImportanceDiagnostics",
    "TargetDiagnostics",
    "aggregate_log_densities",
    "evidence",
    "importance_diagnostics",
    "target_diagnostics",
]


class Inference(NamedTuple):
    """Observed values of a batch, and samples of their posteriors.

    Attributes:
      latents: The samples, with their densities, the posterior and the prior.
      values: Preprocessed images, which p(x | z) is a distribution of,
        ``[batch, height, width, channel]``.
      log_det: The log-det of the preprocessing, ``[batch]``, in nats: log p(image | z) is
        log p(values | z) + log_det.
    """

    latents: Latents
    values: Float[Array, "batch height width channel"]
    log_det: Float[Array, " batch"]


def infer(
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, Array],
    rng: Array,
    *,
    num_samples: int = 1,
    context_key: str | None = None,
) -> Inference:
    """Observes a batch and samples the posterior of each row; arguments as for `evidence`."""
    require(model, "infer")
    check_count("num_samples", num_samples)
    images = as_array("image", entry(batch, "image"))
    context = context_of(batch, context_key)
    observation, latents = split_rows(rng, images.shape[0])
    values, log_det = model.apply(variables, images, observation, method="observe")
    latents = model.apply(variables, values, latents, num_samples, context=context, method="infer")
    return Inference(latents, values, log_det)


class Evidence(NamedTuple):
    """Samples of the posterior and the log-likelihood of the data given each, in nats.

    Attributes:
      latents: As in `Inference`.
      values: As in `Inference`.
      log_det: As in `Inference`.
      log_likelihood: log p(x | z) of the uint8 images, ``[sample, batch]``, including the log-det.
    """

    latents: Latents
    values: Float[Array, "batch height width channel"]
    log_det: Float[Array, " batch"]
    log_likelihood: Float[Array, "sample batch"]

    def log_weights(self) -> Float[Array, "sample batch"]:
        """Computes log w = log p(x | z) + log p(z) - log q(z | x)."""
        return self.log_likelihood + self.latents.log_ratio()


def evidence(
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, Array],
    rng: Array,
    *,
    num_samples: int = 1,
    context_key: str | None = None,
) -> Evidence:
    """Samples the posterior of each row and evaluates the model there.

    Args:
      model: A `vaeflow.models.VAE`, or a module with its `observe`, `infer` and `likelihood`.
      variables: The model's variables.
      batch: ``{"image": [batch, height, width, channel], ...}``.
      rng: A typed key, or one for each row.
      num_samples: Number of samples of each row.
      context_key: Name of the entry of the batch that is the model's context, or None.

    Raises:
      ValueError: If the model infers no latents, there is no sample, or the batch lacks an entry.
    """
    inference = infer(
        model, variables, batch, rng, num_samples=num_samples, context_key=context_key
    )
    context = context_of(batch, context_key)
    likelihood = model.apply(variables, inference.latents.z, context=context, method="likelihood")
    log_likelihood = likelihood.log_prob(inference.values) + inference.log_det
    return Evidence(*inference, log_likelihood)


def split_rows(rng: Array, rows: int) -> tuple[Array, Array]:
    """Derives two keys for each row: for the observation, and for the latents."""
    keys = jax.vmap(jax.random.split)(row_keys(rng, rows))
    return keys[:, 0], keys[:, 1]


class AggregateLogDensities(NamedTuple):
    """Log-densities of samples under q(z) = (1/N) sum_n q(z | x_n), in nats.

    Attributes:
      joint: log q(z), ``[row]``.
      groups: log q(z^g) of each group by name, ``[row]``.
      dimensions: log q(z_d) of each dimension by group, ``[row, dimension]``; a `Concrete`
        variable is one dimension.
    """

    joint: Float[Array, " row"]
    groups: dict[str, Float[Array, " row"]]
    dimensions: dict[str, Float[Array, "row dimension"]]


def aggregate_log_densities(
    posterior: distrax.Distribution,
    z: Float[Array, "row latent"],
    same: Bool[Array, "row batch"],
    dataset_size: Int[Array, ""] | int,
) -> AggregateLogDensities:
    """Estimates log q(z), and those of its groups and dimensions, from a batch of posteriors.

    log q(z_b) is estimated by log[(1/N) q(z_b | x_b) + (N - 1) / (N (B - 1)) sum_(b' != b)
    q(z_b | x_b')]: z_b was sampled from the posterior of x_b, which for that reason has the weight
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
    copies = jnp.sum(same, axis=1, keepdims=True)
    others = jnp.maximum(same.shape[1] - copies, 1)
    log_size = jnp.log(jnp.asarray(dataset_size, jnp.float32))
    log_others = jnp.log(jnp.maximum(jnp.asarray(dataset_size, jnp.float32) - 1, 1e-30))
    log_weight = jnp.where(same, -jnp.log(copies), log_others - jnp.log(others)) - log_size
    log_weight = log_weight.T
    pieces = pieces_of(posterior, z)
    sums, dimensions = {}, {}
    for name, part in groups_of(posterior).items():
        sums[name], dimensions[name] = _pairwise(part, pieces[name], log_weight)
    return AggregateLogDensities(
        joint=_log_mixture(sum(sums.values()), log_weight),
        groups={name: _log_mixture(values, log_weight) for name, values in sums.items()},
        dimensions=dimensions,
    )


def _log_mixture(
    log_density: Float[Array, "batch row"], log_weight: Float[Array, "batch row"]
) -> Float[Array, " row"]:
    return jax.nn.logsumexp(log_weight + log_density, axis=0)


def _pairwise(
    part: distrax.Distribution, z: Float[Array, "row latent"], log_weight: Array
) -> tuple[Float[Array, "batch row"], Float[Array, "row dimension"]]:
    """Log-densities of all rows under all posteriors, and under their mixture by dimension."""
    normal = normals_of(part)
    if normal is None:
        log_density = per_dim_log_prob(part, z[:, None])[WHOLE][..., 0].T
        return log_density, _log_mixture(log_density, log_weight)[:, None]
    total, dimensions = pairwise_log_prob(normal, z, lambda one: _log_mixture(one, log_weight))
    return total, dimensions.T


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
