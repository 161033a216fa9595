"""Importance-weighted bounds, with three estimators of their gradient.

The three losses are one bound on -log p(x) with equal values; they differ in how the gradient of
the encoder is estimated: by reparameterisation, by "sticking the landing" (STL), which is the path
derivative, or by the doubly reparameterised estimator (DReG).
"""

from __future__ import annotations

import functools
import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.arrays import LOCAL, Axis
from vaeflow._util.checks import context_of, entry, require
from vaeflow.estimators import evidence, infer
from vaeflow.losses.elbo import bits_of
from vaeflow.typing import Aux

PyTree = Any


def importance_weighted(
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, Array],
    rng: Array,
    *,
    axis: Axis = LOCAL,
    train: bool = True,
    num_samples: int = 50,
    context_key: str | None = None,
) -> tuple[Float[Array, ""], Aux]:
    """Computes the mean of -log (1/k) sum_i w_i, with w = p(x | z) p(z) / q(z | x), z_i ~ q.

    An upper bound on -log p(x) that decreases with k and converges to it; k = 1 is the negative
    ELBO.

    Source: Burda, Grosse & Salakhutdinov 2016, "Importance weighted autoencoders", equation 8.

    Args:
      model: A `vaeflow.models.VAE`, or a module with its `observe`, `infer` and `likelihood`.
      num_samples: Number k of samples of each row.

    Returns:
      The loss, and the metrics `negative_bound` (the loss), `negative_elbo`, `reconstruction`,
      `kl`, `effective_sample_size` of the weights, from 1/k to 1, and `bits_per_dim`, of the bound.
    """
    del axis, train
    return _bound(model, variables, batch, rng, num_samples, context_key, "reparameterized")


def sticking_the_landing(
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, Array],
    rng: Array,
    *,
    axis: Axis = LOCAL,
    train: bool = True,
    num_samples: int = 1,
    context_key: str | None = None,
) -> tuple[Float[Array, ""], Aux]:
    """Computes the bound of `importance_weighted` with the path derivative as q's gradient.

    In log q(z | x) the parameters of q are held constant, so that the gradient flows through z
    alone. For k = 1 the omitted term has mean zero, and the gradient's variance vanishes where q is
    the exact posterior. For k > 1 it is biased; `doubly_reparameterized` isn't.

    Here log q is a function of z, which takes the inverse of a flow posterior: cheap for couplings,
    a numerical solution of each step for planar, radial and Sylvester flows, dimension by dimension
    for inverse autoregressive ones.

    Source: Roeder, Wu & Duvenaud 2017, "Sticking the landing", equation 5.

    Args:
      model: A `vaeflow.models.VAE`; a model whose `infer` isn't that of one posterior raises
        ValueError.
      num_samples: Number k of samples of each row.

    Returns:
      As `importance_weighted`.
    """
    del axis, train
    return _bound(model, variables, batch, rng, num_samples, context_key, "stl")


def doubly_reparameterized(
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, Array],
    rng: Array,
    *,
    axis: Axis = LOCAL,
    train: bool = True,
    num_samples: int = 50,
    context_key: str | None = None,
) -> tuple[Float[Array, ""], Aux]:
    """Computes the bound of `importance_weighted` with the doubly reparameterised gradient.

    With normalised weights w~, the encoder's gradient is sum_i w~_i^2 (d log w_i / d z_i)
    (d z_i / d phi) and that of decoder and prior sum_i w~_i d log w_i / d theta. Unbiased for every
    k, and its signal-to-noise ratio doesn't vanish as k grows. log q is a function of z, at the
    cost that `sticking_the_landing` states, and so are the models.

    Source: Tucker, Lawson, Gu & Maddison 2019, "Doubly reparameterized gradient estimators",
    equation 8.

    Args:
      model: As for `sticking_the_landing`.
      num_samples: Number k of samples of each row.

    Returns:
      As `importance_weighted`.
    """
    del axis, train
    return _bound(model, variables, batch, rng, num_samples, context_key, "dreg")


def log_mean_exp(log_weights: Float[Array, "sample batch"]) -> Float[Array, " batch"]:
    """Computes log (1/k) sum_i w_i over the first axis."""
    return jax.nn.logsumexp(log_weights, axis=0) - math.log(log_weights.shape[0])


def _bound(
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, Array],
    rng: Array,
    num_samples: int,
    context_key: str | None,
    gradient: Literal["reparameterized", "stl", "dreg"],
) -> tuple[Float[Array, ""], Aux]:
    """Computes the bound and its metrics, with the gradient of an estimator."""
    options = {"num_samples": num_samples, "context_key": context_key}
    if gradient == "reparameterized":
        terms = evidence(model, variables, batch, rng, **options)
        log_weights, log_likelihood = terms.log_weights(), terms.log_likelihood
    else:
        require(model, "posterior")
        latents, values, log_det = infer(model, variables, batch, rng, **options)
        posterior = jax.lax.stop_gradient(latents.posterior)
        context = context_of(batch, context_key)
        operands = (variables, latents.prior, posterior, values, log_det, context)
        weigh = _log_weights if gradient == "stl" else _doubly_weighted
        log_weights, log_likelihood = weigh(model, latents.z, operands)
    bound = -jnp.mean(log_mean_exp(log_weights))
    weights = jax.nn.softmax(log_weights, axis=0)
    reconstruction = -jnp.mean(log_likelihood)
    negative_elbo = -jnp.mean(log_weights)
    share = 1 / (jnp.sum(weights**2, axis=0) * log_weights.shape[0])
    metrics = {
        "negative_bound": bound,
        "negative_elbo": negative_elbo,
        "reconstruction": reconstruction,
        "kl": negative_elbo - reconstruction,
        "effective_sample_size": jnp.mean(share),
        "bits_per_dim": bound / bits_of(entry(batch, "image")),
    }
    return bound, Aux(metrics, {})


def _log_weights(model: nn.Module, z: Array, operands: PyTree) -> tuple[Array, Array]:
    """Computes log w and log p(x | z) as functions of z, ``[sample, batch]``."""
    variables, prior, posterior, values, log_det, context = operands
    likelihood = model.apply(variables, z, context=context, method="likelihood")
    log_likelihood = likelihood.log_prob(values) + log_det
    return log_likelihood + prior.log_prob(z) - posterior.log_prob(z), log_likelihood


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _doubly_weighted(model: nn.Module, z: Array, operands: PyTree) -> tuple[Array, Array]:
    """Computes `_log_weights`, with the gradient for z times the normalised weights."""
    return _log_weights(model, z, operands)


@_doubly_weighted.defjvp
def _doubly_weighted_jvp(model, primals, tangents):
    dz, doperands = tangents
    results, push_forward = jax.linearize(functools.partial(_log_weights, model), *primals)
    weights = jax.nn.softmax(results[0], axis=0)[..., None].astype(dz.dtype)
    return results, push_forward(weights * dz, doperands)
