"""Maximum likelihood."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.axis import LOCAL, Axis
from vaeflow.losses.base import Aux, context_of, require


def negative_log_likelihood(
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, Array],
    rng: Array,
    *,
    axis: Axis = LOCAL,
    train: bool = True,
    data: str = "image",
    condition: str | tuple[str, ...] | None = None,
) -> tuple[Float[Array, ""], Aux]:
    """Computes the mean of -log P(example) over a batch, an upper bound where noise is added.

    The value is in nats per dimension, which keeps the size of gradients alike for data of all
    sizes; the metrics hold the nats of a whole example and the bits per dimension:
    bits/dim = nats / (D log 2) for D entries.

    Args:
      model: A `vaeflow.models.FlowModel`, a `CodePrior` or a module with their `log_prob`.
      variables: The model's variables.
      batch: ``{"image": [batch, *event], ...}``, or another entry than "image" by `data`.
      rng: A typed key, or one for each row.
      axis: How the batch is divided; unused, as no term is coupled over the batch.
      train: Whether flows that have `probes` estimate their log-determinants with noise, drawn for
        all rows at hand from the key of the first; otherwise they are exact. Likewise for networks
        with `dropout`.
      data: Name of the entry of the batch whose density the model is.
      condition: Name of the entry of the batch that is the model's context, the names of several
        for a model whose context is a tuple, or None.

    Returns:
      The loss, and the metrics `negative_log_likelihood` (nats) and `bits_per_dim`.

    Raises:
      ValueError: If the model has no log-likelihood.
    """
    del axis
    require(model, "log_prob")
    examples = batch[data]
    context = context_of(batch, condition)
    # Flax folds a number into the key before it draws, so rows may draw from theirs as well.
    rngs = dict.fromkeys(("probe", "dropout"), rng.reshape(-1)[0]) if train else {}
    log_prob = model.apply(variables, examples, rng, context, method="log_prob", rngs=rngs)
    nats = -jnp.mean(log_prob)
    dimensions = math.prod(examples.shape[1:])
    metrics = {
        "negative_log_likelihood": nats,
        "bits_per_dim": nats / (dimensions * math.log(2)),
    }
    return nats / dimensions, Aux(metrics, {})
