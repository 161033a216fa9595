"""The cross-entropy of image classifiers, which score the samples of other models."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.arrays import LOCAL, Axis
from vaeflow._util.checks import check_labels, entry, require
from vaeflow.typing import Aux


def cross_entropy(
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, Array],
    rng: Array,
    *,
    axis: Axis = LOCAL,
    train: bool = True,
) -> tuple[Float[Array, ""], Aux]:
    """Computes the mean of -log p(label | image) over a batch, p being the softmax of the logits.

    Args:
      model: A module whose method `logits` maps ``[batch, height, width, channel]`` to
        ``[batch, class]``.
      batch: Holds "label", ``[batch]``, too.

    Returns:
      The loss, which is the metric `cross_entropy` too, and `accuracy`, the share of images whose
      label has the largest logit.

    Raises:
      ValueError: If the model has no logits, or the batch not a label for each image, or a label
        that is known is of no class; one that isn't makes the loss NaN.
    """
    del rng, axis, train
    require(model, "logits")
    logits = model.apply(variables, entry(batch, "image"), method="logits")
    labels, inside = check_labels("label", entry(batch, "label"), logits.shape[-1])
    if labels.shape != logits.shape[:1]:
        raise ValueError(
            f"label must be one for each of {logits.shape[0]} images, got shape {labels.shape}"
        )
    log_probabilities = jax.nn.log_softmax(logits)
    found = jnp.take_along_axis(log_probabilities, labels[:, None], axis=-1)[:, 0]
    nats = -jnp.mean(jnp.where(inside, found, jnp.nan))
    accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == labels, dtype=nats.dtype)
    return nats, Aux({"cross_entropy": nats, "accuracy": accuracy}, {})
