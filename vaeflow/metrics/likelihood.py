"""Likelihoods of latent-variable models and the use of their latents.

Importance-weighted log-likelihoods, bits per dimension, active units (Burda et al. 2016) and the
mutual information of examples and latents (Hoffman & Johnson 2016).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from vaeflow._util.arrays import row_keys
from vaeflow.distributions.grouped import per_dim_log_prob
from vaeflow.estimators import aggregate_log_densities, split_rows


def bits_per_dim(nats: Float[np.ndarray, "*batch"], dimensions: int) -> Float[np.ndarray, "*batch"]:
    """Converts a negative log-likelihood into bits per dimension: nats / (dimensions log 2).

    Args:
      nats: Negative log-likelihood of examples in nats, a scalar or an array of any shape.
      dimensions: Number of dimensions of an example, height * width * channel for an image.

    Returns:
      Bits per dimension, of the shape of `nats`.

    Raises:
      ValueError: If `dimensions` is not positive.
    """
    if dimensions < 1:
        raise ValueError(f"dimensions must be at least 1, got {dimensions}")
    return nats / (dimensions * math.log(2))


LEAST_VARIANCE = 0.01
"""Variance of a latent's posterior mean over the data, above which it is active."""


def active_units(means: Float[np.ndarray, "example latent"]) -> Bool[np.ndarray, " latent"]:
    """Returns which latents are active, that is depend on the data: Var_x E_q[z_d | x] > 0.01.

    The others have collapsed to the prior.

    Source: Burda, Grosse & Salakhutdinov 2016, "Importance weighted autoencoders", section 5.

    Args:
      means: The posterior mean of each example.

    Raises:
      ValueError: If there are fewer than two examples, or they aren't vectors.
    """
    means = np.asarray(means, np.float64)
    if means.ndim != 2 or len(means) < 2:
        raise ValueError(
            f"means must have shape [example, latent] with 2 examples or more, got {means.shape}"
        )
    return np.var(means, axis=0) > LEAST_VARIANCE


def importance_weighted_log_likelihood(
    model: nn.Module,
    variables: dict[str, Any],
    images: UInt8[Array, "batch height width channel"],
    rng: Array,
    *,
    num_samples: int = 5000,
    chunk: int = 100,
    context: Array | None = None,
) -> Float[Array, " batch"]:
    """Estimates log p(x) of each image by log (1/k) sum_i p(x | z_i) p(z_i) / q(z_i | x), z_i ~ q.

    A lower bound on average, which rises with k. An image is observed once, so one that is
    binarised is the same for all samples. Pure, for use within compiled functions; memory grows
    with the chunk, not with k.

    Source: Rezende, Mohamed & Wierstra 2014, appendix E; Burda, Grosse & Salakhutdinov 2016,
    section 5.

    Args:
      model: A `vaeflow.models.VAE`, or a module with its `observe`, `infer` and `likelihood`.
      variables: The model's variables.
      images: Images of dtype uint8.
      rng: A typed key, or one for each row.
      num_samples: Number k of samples of each row.
      chunk: Number of them at a time; it must divide `num_samples`.
      context: Labels ``[batch]``, or None.

    Returns:
      Nats of each image, ``[batch]``; divided by -D log 2 they are bits/dim.

    Raises:
      ValueError: If the chunk doesn't divide the number of samples.
    """
    if num_samples < 1 or chunk < 1 or num_samples % chunk:
        raise ValueError(f"chunk must divide num_samples, got {chunk} and {num_samples}")
    keys = row_keys(rng, images.shape[0])
    values, log_det = model.apply(variables, images, numbered_keys(keys, 0), method="observe")

    def add(total: Array, number: Array) -> tuple[Array, None]:
        latents = model.apply(
            variables, values, numbered_keys(keys, number), chunk, context=context, method="infer"
        )
        likelihood = model.apply(variables, latents.z, context=context, method="likelihood")
        log_weights = likelihood.log_prob(values) + latents.log_ratio()
        return jnp.logaddexp(total, jax.nn.logsumexp(log_weights, axis=0)), None

    of_chunk = jax.eval_shape(add, jnp.zeros(images.shape[0], jnp.float32), jnp.int32(1))[0]
    start = jnp.full_like(of_chunk, -jnp.inf)
    total = jax.lax.scan(add, start, jnp.arange(1, num_samples // chunk + 1))[0]
    return total - math.log(num_samples) + log_det


def numbered_keys(keys: Array, number: Array | int) -> Array:
    """Returns a key for each row, other ones for each number."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


class LatentInformation(NamedTuple):
    """The two terms of the mean KL of the posteriors of a data set, in nats an example.

    Attributes:
      kl: mean_n KL(q(z | x_n) || p(z)), the sum of the other two.
      mutual_information: I(n; z) of the example's index and its latent: from 0, where posteriors
        have collapsed, to log N, where no two overlap.
      marginal_kl: KL(q(z) || p(z)) of the aggregate posterior.
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

    q(z) = (1/N) sum_n q(z | x_n) is that of the N given images, so I is at most log N: give the
    data set, or a part as large as possible. Each sample is evaluated under all N posteriors, N^2
    densities, so that q(z) is exact and the mean over samples the only error; estimates of terms
    near zero may be negative. Pure, for use within compiled functions. The encoder is applied to
    all images at once; beyond that memory grows with N times the chunk.

    Source: Hoffman & Johnson 2016, "ELBO surgery: yet another way to carve up the variational
    evidence lower bound".

    Args:
      model: A `vaeflow.models.VAE`, or a module with its `observe`, `posterior` and `prior`, and
        `infer`. A posterior that is a flow must have an inverse.
      variables: The model's variables.
      images: Images of dtype uint8, two or more.
      rng: A typed key, or one for each row.
      chunk: Number of samples evaluated under the posteriors at a time.
      context: Labels ``[batch]``, or None. A prior with labels is that of each row's label.

    Raises:
      ValueError: If there is one image, or the chunk isn't positive.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    count = images.shape[0]
    first, second = split_rows(rng, count)
    values, _ = model.apply(variables, images, first, method="observe")
    posterior = model.apply(variables, values, context=context, method="posterior")
    prior = model.apply(variables, context=context, method="prior")
    z = model.apply(variables, values, second, 1, context=context, method="infer").z[0]
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
