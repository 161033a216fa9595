"""Fitting a flow to an unnormalised density, by samples of that density."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.axis import LOCAL, Axis
from vaeflow.losses.base import Aux, context_of, require
from vaeflow.losses.reverse import Energy
from vaeflow.metrics import target_diagnostics


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
    condition: str | None = None,
) -> tuple[Float[Array, ""], Aux]:
    """Computes E_p[-U(x) - log q(x)], which is KL(p || q) + log Z, over a batch from p.

    The target is p(x) = exp(-U(x)) / Z. Its gradient is that of the negative log-likelihood; what
    the energy adds is how far q has come. Where it isn't known, use `negative_log_likelihood`.

    Args:
      model: A `vaeflow.models.FlowModel` of real-valued data, or a module with its `log_prob`.
      variables: The model's variables.
      batch: Samples of p: ``{"image": [batch, *event], ...}``, or another entry by `data`.
      rng: Unused, as the model draws nothing.
      axis: How the batch is divided; the diagnostics are those of the whole batch.
      train: Unused, as the model behaves alike in training and in evaluation.
      energy: U, a pure function from ``[*batch, *event]`` to nats ``[*batch]``; bound by
        `functools.partial` where training calls the loss.
      data: Name of the entry of the batch that holds the samples.
      condition: Name of the entry of the batch that is the model's context, or None.

    Returns:
      The loss in nats, and the metrics `negative_log_likelihood` and those of
      `vaeflow.metrics.TargetDiagnostics`, for the whole batch.

    Raises:
      ValueError: If the model has no log-likelihood.
    """
    del rng, train
    require(model, "log_prob")
    samples = batch[data]
    context = context_of(batch, condition)
    log_q = model.apply(variables, samples, None, context, method="log_prob")
    log_weights = -energy(samples) - log_q
    metrics = {
        "negative_log_likelihood": -jnp.mean(log_q),
        **target_diagnostics(axis.gather(log_weights))._asdict(),
    }
    return jnp.mean(log_weights), Aux(metrics, {})
