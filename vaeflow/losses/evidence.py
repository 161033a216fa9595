"""The terms that bounds on the evidence are made of."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from vaeflow.losses.base import context_of, require
from vaeflow.models.latents import Latents
from vaeflow.randomness import row_keys


class Evidence(NamedTuple):
    """Samples of the posterior and how well they explain the data, in nats.

    Attributes:
      latents: The samples, with their densities.
      log_likelihood: log p(x | z), ``[sample, batch]``, of images: what an observation costs is
        included.
    """

    latents: Latents
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
    samples: int = 1,
    condition: str | None = None,
) -> Evidence:
    """Draws from the posterior of each row and evaluates the model there.

    Args:
      model: A `vaeflow.models.VAE`, or a module with its `observe`, `infer` and `likelihood`.
      variables: The model's variables.
      batch: ``{"image": [batch, height, width, channel], ...}``.
      rng: A typed key, or one for each row.
      samples: Number of samples of each row.
      condition: Name of the entry of the batch that is the model's context, or None.

    Raises:
      ValueError: If the model infers no latents.
    """
    require(model, "infer")
    images = batch["image"]
    context = context_of(batch, condition)
    first, second = split_rows(rng, images.shape[0])
    values, log_det = model.apply(variables, images, first, method="observe")
    latents = model.apply(variables, values, second, samples, context, method="infer")
    likelihood = model.apply(variables, latents.z, context, method="likelihood")
    return Evidence(latents, likelihood.log_prob(values) + log_det)


def split_rows(rng: Array, count: int) -> tuple[Array, Array]:
    """Makes two keys for each row: of the observation, and of the latents."""
    keys = jax.vmap(jax.random.split)(row_keys(rng, count))
    return keys[:, 0], keys[:, 1]
