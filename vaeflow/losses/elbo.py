"""The negative evidence lower bound, and the reconstruction loss of auto-encoders."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.axis import LOCAL, Axis
from vaeflow.estimators import Aux, Evidence, evidence
from vaeflow.models import AutoEncoder


def elbo(
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, Array],
    rng: Array,
    *,
    axis: Axis = LOCAL,
    train: bool = True,
    beta: Float[Array, ""] | float = 1.0,
    free_bits: Float[Array, ""] | float | None = None,
    capacity: Float[Array, ""] | float | None = None,
    context_key: str | None = None,
) -> tuple[Float[Array, ""], Aux]:
    """Computes the mean of -E_q log p(x | z) + beta KL(q(z | x) || p(z)), from one sample a row.

    beta = 1 is the negative ELBO, an upper bound on -log p(x); above 1 it is the beta-VAE. A beta
    that rises is warm-up. With free bits the KL counts as lambda where it is less, for each latent
    of a group whose KL has a closed form and for each other group as a whole, averaged over the
    batch: sum_d max(lambda, KL_d). With a capacity C it is ``beta |KL - C|``, for C that rises.

    Where posterior and prior are independent normals the KL is exact; elsewhere, as with flows, it
    is log q(z | x) - log p(z) at the sample.

    Source: Kingma & Welling 2014, equations 2 and 7; Higgins et al. 2017, "beta-VAE", equation 4;
    Kingma et al. 2016, "Inverse autoregressive flow", appendix C.8 (free bits); Burgess et al.
    2018, "Understanding disentangling in beta-VAE", equation 8 (capacity).

    Args:
      model: A `vaeflow.models.VAE`, or a module with its `observe`, `infer` and `likelihood`.
      variables: The model's variables.
      batch: ``{"image": [batch, height, width, channel], ...}``.
      rng: A typed key, or one for each row.
      axis: How the batch is divided; KLs are averaged over all of it before they are compared with
        free bits and capacity.
      train: Unused, as the model behaves alike in training and in evaluation.
      beta: Weight of the KL.
      free_bits: lambda, in nats, or None.
      capacity: C, in nats, or None.
      context_key: Name of the entry of the batch that is the model's context, or None.

    Returns:
      The loss in nats, and the metrics `negative_elbo`, `reconstruction` (-E log p(x | z)), `kl`,
      `kl/NAME` of each group where there are several, all in nats an example, and `bits_per_dim`,
      of the bound.

    Raises:
      ValueError: If both free bits and a capacity are given.
    """
    del train
    if free_bits is not None and capacity is not None:
        raise ValueError(
            f"free_bits and capacity exclude each other, got {free_bits} and {capacity}"
        )
    found = evidence(model, variables, batch, rng, context_key=context_key)
    metrics = elbo_metrics(found, batch)
    kl = metrics["kl"]
    if capacity is not None:
        penalty = jnp.abs(axis.mean(kl) - capacity)
    elif free_bits is not None:
        groups = found.latents.kl_by_group()
        parts = [found.latents.kl.get(name, value) for name, value in groups.items()]
        averages = [axis.mean(jnp.mean(part, axis=0)) for part in parts]
        penalty = sum(jnp.sum(jnp.maximum(free_bits, average)) for average in averages)
    else:
        penalty = kl
    return metrics["reconstruction"] + beta * penalty, Aux(metrics, {})


def elbo_metrics(found: Evidence, batch: dict[str, Array]) -> dict[str, Float[Array, ""]]:
    """The bound and its parts, averaged over the rows at hand; see `elbo`."""
    groups = found.latents.kl_by_group()
    reconstruction = -jnp.mean(found.log_likelihood)
    kl = sum(jnp.mean(value) for value in groups.values())
    bound = reconstruction + kl
    metrics = {"negative_elbo": bound, "reconstruction": reconstruction, "kl": kl}
    if len(groups) > 1:
        metrics |= {f"kl/{name}": jnp.mean(value) for name, value in groups.items()}
    dimensions = math.prod(batch["image"].shape[1:])
    return metrics | {"bits_per_dim": bound / (dimensions * math.log(2))}


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
