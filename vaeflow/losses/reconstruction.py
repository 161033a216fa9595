"""What an auto-encoder minimises."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.axis import LOCAL, Axis
from vaeflow.losses.base import Aux
from vaeflow.models import AutoEncoder


def reconstruction(
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, Array],
    rng: Array,
    *,
    axis: Axis = LOCAL,
    train: bool = True,
) -> tuple[Float[Array, ""], Aux]:
    """Computes the mean of -log p(x | f(x)): how badly images come back from their latents.

    No bound on the likelihood of the images, as the latents have no distribution.

    Args:
      model: A `vaeflow.models.AutoEncoder`.
      variables: The model's variables.
      batch: ``{"image": [batch, height, width, channel], ...}``.
      rng: A typed key, or one for each row.
      axis: Unused, as no term is coupled over the batch.
      train: Unused, as the model behaves alike in training and in evaluation.

    Returns:
      The loss, which is the metric `reconstruction` too, in nats an example, and
      `reconstruction_per_dim`, in bits an entry.

    Raises:
      ValueError: If the model isn't an auto-encoder.
    """
    del axis, train
    if not isinstance(model, AutoEncoder):
        raise ValueError(
            f"this objective is defined for an AutoEncoder, got a {type(model).__name__}"
        )
    images = batch["image"]
    values, log_det = model.apply(variables, images, rng, method="observe")
    likelihood = model.apply(variables, model.apply(variables, values), method="likelihood")
    nats = -jnp.mean(likelihood.log_prob(values) + log_det)
    dimensions = math.prod(images.shape[1:])
    return nats, Aux(
        {"reconstruction": nats, "reconstruction_per_dim": nats / (dimensions * math.log(2))}, {}
    )
