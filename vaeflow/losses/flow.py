"""Losses of density models: negative log-likelihood, and KL divergences from and to an energy.

`negative_log_likelihood` fits a model to data, `reverse_kl` to an unnormalised density by samples
of the model, `forward_kl` to one by samples of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.arrays import LOCAL, Axis, row_keys
from vaeflow._util.checks import as_array, check_number, context_of, entry, require
from vaeflow.estimators import importance_diagnostics, target_diagnostics
from vaeflow.typing import Aux


def negative_log_likelihood(
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, Array],
    rng: Array,
    *,
    axis: Axis = LOCAL,
    train: bool = True,
    data: str = "image",
    context_key: str | tuple[str, ...] | None = None,
) -> tuple[Float[Array, ""], Aux]:
    """Computes the mean of -log P(example) over a batch, an upper bound where noise is added.

    The value is in nats per dimension, which keeps the size of gradients comparable for data of all
    sizes; the metrics hold the nats of a whole example and the bits per dimension:
    bits/dim = nats / (D log 2) for D dimensions.

    Args:
      model: A `vaeflow.models.FlowModel`, a `CodePrior` or a module with their `log_prob`.
      train: Whether flows with `num_probes` estimate their log-determinants with noise, drawn for
        all rows at hand from the key of the first; otherwise they are exact. Networks with
        `dropout` drop in training only.
      data: Name of the entry of the batch whose density the model is, ``[batch, *event]``.
      context_key: May be the names of several entries, for a model whose context is a tuple.

    Returns:
      The loss, and the metrics `negative_log_likelihood` (nats) and `bits_per_dim`.

    Raises:
      ValueError: If the model has no log-likelihood.
    """
    del axis
    require(model, "log_prob")
    examples = as_array(data, entry(batch, data))
    context = context_of(batch, context_key)
    # Flax folds a number into the key before it draws, so rows may draw from theirs as well.
    rngs = dict.fromkeys(("probe", "dropout"), rng.reshape(-1)[0]) if train else {}
    log_prob = model.apply(variables, examples, rng, context=context, method="log_prob", rngs=rngs)
    nats = -jnp.mean(log_prob)
    dimensions = math.prod(examples.shape[1:])
    metrics = {
        "negative_log_likelihood": nats,
        "bits_per_dim": nats / (dimensions * math.log(2)),
    }
    return nats / dimensions, Aux(metrics, {})


Energy = Callable[[Array], Array]


def reverse_kl(
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, Array],
    rng: Array,
    *,
    axis: Axis = LOCAL,
    train: bool = True,
    energy: Energy,
    beta: Float[Array, ""] | float = 1.0,
    context_key: str | None = None,
) -> tuple[Float[Array, ""], Aux]:
    """Computes E_q[log q(x) + beta U(x)], which is KL(q || p) - log Z for beta = 1.

    The target is p(x) = exp(-U(x)) / Z. A beta that rises from near 0 to 1 anneals it, so that q
    doesn't settle in the first mode that it finds; Rezende & Mohamed 2015 have
    beta = min(1, 0.01 + t / 10000) at step t. Samples and their densities come from
    `sample_and_log_prob`, which needs the forward direction alone, and are differentiated through:
    the model's base must be reparameterised.

    Args:
      model: A `vaeflow.models.FlowModel` of real-valued data, or another module that returns a
        distribution given `context`.
      batch: Only its number of rows is used, as that of the samples, and its context.
      energy: U, a pure function from ``[*batch, *event]`` to nats ``[*batch]``; bound by
        `functools.partial` where training calls the loss.
      beta: Inverse temperature of the target.

    Returns:
      The loss, and the metrics `free_energy` (the loss at beta = 1), `entropy` (of q) and
      those of `vaeflow.estimators.ImportanceDiagnostics` at beta = 1, all for the whole batch.

    Raises:
      ValueError: If the energy isn't one number a sample.
    """
    del train
    beta = check_number("beta", beta, 0)
    log_q, energies = reverse_kl_terms(
        model, variables, batch, rng, energy=energy, context_key=context_key
    )
    diagnostics = importance_diagnostics(axis.gather(-energies - log_q))
    metrics = {
        "free_energy": jnp.mean(log_q + energies),
        "entropy": -jnp.mean(log_q),
        **diagnostics._asdict(),
    }
    return jnp.mean(log_q + beta * energies), Aux(metrics, {})


def reverse_kl_terms(
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, Array],
    rng: Array,
    *,
    energy: Energy,
    context_key: str | None = None,
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """Computes log q(x) and U(x) of one sample a row, each in nats.

    The log importance weights of the samples are -U(x) - log q(x). Arguments as in `reverse_kl`.
    """
    contexts = context_of(batch, context_key)
    keys = row_keys(rng, jax.tree.leaves(dict(batch))[0].shape[0])

    def one(key: Array, context: Array | None) -> tuple[Array, Array]:
        return model.apply(variables, context=context).sample_and_log_prob(seed=key)

    samples, log_q = jax.vmap(one)(keys, contexts)
    return log_q, _energies(energy, samples, log_q.shape)


def _energies(energy: Energy, samples: Array, shape: tuple[int, ...]) -> Float[Array, " batch"]:
    """Computes U of each sample.

    Raises:
      ValueError: If it isn't one number a sample.
    """
    energies = jnp.asarray(energy(samples))
    if energies.shape != shape:
        raise ValueError(
            f"energy must return one number a sample, of shape {shape} for samples of shape "
            f"{samples.shape}, got shape {energies.shape}"
        )
    return energies


def forward_kl(
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, Array],
    rng: Array,
    *,
    axis: Axis = LOCAL,
    train: bool = True,
    energy: Energy,
    data: str = "image",
    context_key: str | None = None,
) -> tuple[Float[Array, ""], Aux]:
    """Computes E_p[-U(x) - log q(x)], which is KL(p || q) + log Z, over a batch from p.

    The target is p(x) = exp(-U(x)) / Z. The gradient is that of the negative log-likelihood; with
    the energy, the value measures the distance from the target. Where it isn't known, use
    `negative_log_likelihood`.

    Args:
      model: A `vaeflow.models.FlowModel` of real-valued data, or a module with its `log_prob`.
      energy: U, a pure function from ``[*batch, *event]`` to nats ``[*batch]``; bound by
        `functools.partial` where training calls the loss.
      data: Name of the entry of the batch that holds samples of p, ``[batch, *event]``.

    Returns:
      The loss, and the metrics `negative_log_likelihood` and those of
      `vaeflow.estimators.TargetDiagnostics`, for the whole batch.

    Raises:
      ValueError: If the model has no log-likelihood, or the energy isn't one number a sample.
    """
    del rng, train
    require(model, "log_prob")
    samples = as_array(data, entry(batch, data))
    context = context_of(batch, context_key)
    log_q = model.apply(variables, samples, None, context=context, method="log_prob")
    log_weights = -_energies(energy, samples, log_q.shape) - log_q
    metrics = {
        "negative_log_likelihood": -jnp.mean(log_q),
        **target_diagnostics(axis.gather(log_weights))._asdict(),
    }
    return jnp.mean(log_weights), Aux(metrics, {})
