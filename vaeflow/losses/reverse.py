"""Fitting a flow to an unnormalised density, by samples of the flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.axis import LOCAL, Axis
from vaeflow.losses.base import Aux, context_of
from vaeflow.metrics import importance_diagnostics
from vaeflow.randomness import row_keys

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
    condition: str | None = None,
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
      variables: The model's variables.
      batch: Its number of rows is that of the samples: ``{"index": [batch], ...}``.
      rng: A typed key, or one for each row.
      axis: How the batch is divided; the diagnostics are those of the whole batch.
      train: Unused, as the model behaves alike in training and in evaluation.
      energy: U, a pure function from ``[*batch, *event]`` to nats ``[*batch]``; bound by
        `functools.partial` where training calls the loss.
      beta: Inverse temperature of the target.
      condition: Name of the entry of the batch that is the model's context, or None.

    Returns:
      The loss in nats, and the metrics `free_energy` (the loss at beta = 1), `entropy` (of q) and
      those of `vaeflow.metrics.ImportanceDiagnostics` at beta = 1, all for the whole batch.
    """
    del train
    log_q, energies = reverse_kl_terms(
        model, variables, batch, rng, energy=energy, condition=condition
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
    condition: str | None = None,
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """Draws one sample a row and computes log q(x) and U(x), each in nats.

    The log importance weights of the samples are -U(x) - log q(x). Arguments as in `reverse_kl`.
    """
    contexts = context_of(batch, condition)
    keys = row_keys(rng, jax.tree.leaves(dict(batch))[0].shape[0])

    def one(key: Array, context: Array | None) -> tuple[Array, Array]:
        return model.apply(variables, context=context).sample_and_log_prob(seed=key)

    samples, log_q = jax.vmap(one)(keys, contexts)
    return log_q, energy(samples)
