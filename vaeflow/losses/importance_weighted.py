"""Importance-weighted bounds, and gradients of less variance."""

from __future__ import annotations

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.axis import LOCAL, Axis
from vaeflow.estimators import Aux, context_of, evidence, require, split_rows
from vaeflow.models.base import stopped

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

    An upper bound on -log p(x) that falls with k, to it in the limit; k = 1 is the negative ELBO.

    Source: Burda, Grosse & Salakhutdinov 2016, "Importance weighted autoencoders", equation 8.

    Args:
      model: A `vaeflow.models.VAE`, or a module with its `observe`, `infer` and `likelihood`.
      variables: The model's variables.
      batch: ``{"image": [batch, height, width, channel], ...}``.
      rng: A typed key, or one for each row.
      axis: Unused, as no term is coupled over the batch.
      train: Unused, as the model behaves alike in training and in evaluation.
      num_samples: Number k of samples of each row.
      context_key: Name of the entry of the batch that is the model's context, or None.

    Returns:
      The loss in nats, and the metrics `negative_bound` (the loss), `negative_elbo`,
      `reconstruction`, `kl`, all in nats an example, `effective_sample_size` of the weights, from
      1/k to 1, and `bits_per_dim`, of the bound.
    """
    del axis, train
    found = evidence(model, variables, batch, rng, num_samples=num_samples, context_key=context_key)
    return _bound(found.log_weights(), found.log_likelihood, batch)


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
    """Computes the bound of `importance_weighted` with a gradient that q's own parameters skip.

    In log q(z | x) the parameters of q are held constant, so that the gradient flows through z
    alone. For k = 1 what is left out has mean zero, and the gradient's variance vanishes where q is
    the exact posterior. For k > 1 it is biased; `doubly_reparameterized` isn't.

    Here log q is a function of z, which takes the inverse of a flow posterior: free for couplings,
    a search for each step for planar, radial and Sylvester flows, entry by entry for inverse
    autoregressive ones.

    Source: Roeder, Wu & Duvenaud 2017, "Sticking the landing", equation 5.

    Args:
      model: A `vaeflow.models.VAE`; a model whose `infer` isn't that of one posterior is refused.
      variables: As for `importance_weighted`.
      batch: As for `importance_weighted`.
      rng: As for `importance_weighted`.
      axis: As for `importance_weighted`.
      train: As for `importance_weighted`.
      num_samples: As for `importance_weighted`.
      context_key: As for `importance_weighted`.

    Returns:
      As `importance_weighted`.

    Raises:
      ValueError: If the model has no single posterior.
    """
    del axis, train
    weights = _path_weights(model, variables, batch, rng, num_samples, context_key, doubly=False)
    return _bound(*weights, batch)


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
    k, and its signal doesn't fade as k grows. log q is a function of z, as for
    `sticking_the_landing`, with the same cost for flow posteriors.

    Source: Tucker, Lawson, Gu & Maddison 2019, "Doubly reparameterized gradient estimators",
    equation 8.

    Args:
      model: As for `sticking_the_landing`.
      variables: As for `importance_weighted`.
      batch: As for `importance_weighted`.
      rng: As for `importance_weighted`.
      axis: As for `importance_weighted`.
      train: As for `importance_weighted`.
      num_samples: As for `importance_weighted`.
      context_key: As for `importance_weighted`.

    Returns:
      As `importance_weighted`.

    Raises:
      ValueError: If the model has no single posterior.
    """
    del axis, train
    weights = _path_weights(model, variables, batch, rng, num_samples, context_key, doubly=True)
    return _bound(*weights, batch)


def log_mean_exp(log_weights: Float[Array, "sample batch"]) -> Float[Array, " batch"]:
    """Computes log (1/k) sum_i w_i over the first axis."""
    return jax.nn.logsumexp(log_weights, axis=0) - math.log(log_weights.shape[0])


def _path_weights(model, variables, batch, rng, num_samples, context_key, doubly):
    """Log-weights whose gradient reaches q's parameters through the samples alone."""
    require(model, "posterior")
    images, context = batch["image"], context_of(batch, context_key)
    first, second = split_rows(rng, images.shape[0])
    values, log_det = model.apply(variables, images, first, method="observe")
    z = model.apply(variables, values, second, num_samples, context, method="infer").z
    posterior = stopped(model.apply(variables, values, context, method="posterior"))
    weigh = functools.partial(_log_weights, model)
    operands = (variables, posterior, values, log_det, context)
    return (_weighted_by_itself if doubly else lambda f, z, o: f(z, o))(weigh, z, operands)


def _log_weights(model, z: Array, operands: PyTree) -> tuple[Array, Array]:
    variables, posterior, values, log_det, context = operands
    likelihood = model.apply(variables, z, context, method="likelihood")
    log_likelihood = likelihood.log_prob(values) + log_det
    prior = model.apply(variables, context, method="prior")
    return log_likelihood + prior.log_prob(z) - posterior.log_prob(z), log_likelihood


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _weighted_by_itself(function, z, operands):
    """function(z, operands), its gradient for z multiplied by the normalised weights once more."""
    return function(z, operands)


def _weighted_forward(function, z, operands):
    (log_weights, log_likelihood), pull_back = jax.vjp(function, z, operands)
    return (log_weights, log_likelihood), (log_weights, pull_back)


def _weighted_backward(function, residuals, gradients):
    del function
    log_weights, pull_back = residuals
    dz, doperands = pull_back(gradients)
    return jax.nn.softmax(log_weights, axis=0)[..., None] * dz, doperands


_weighted_by_itself.defvjp(_weighted_forward, _weighted_backward)


def _bound(log_weights, log_likelihood, batch) -> tuple[Array, Aux]:
    """The loss and the metrics of all three."""
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
        "bits_per_dim": bound / (math.prod(batch["image"].shape[1:]) * math.log(2)),
    }
    return bound, Aux(metrics, {})
