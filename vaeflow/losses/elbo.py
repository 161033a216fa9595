"""The negative evidence lower bound, and the reconstruction loss of auto-encoders."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.arrays import LOCAL, Axis
from vaeflow._util.checks import check_number, entry
from vaeflow.estimators import Evidence, evidence
from vaeflow.models import AutoEncoder
from vaeflow.typing import Aux


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
      beta: Weight of the KL.
      free_bits: lambda, in nats, or None; compared with KLs averaged over the whole batch.
      capacity: C, in nats, or None; likewise.

    Returns:
      The loss, and the metrics `negative_elbo`, `reconstruction` (-E log p(x | z)), `kl`, `kl/NAME`
      of each group where there are several, and `bits_per_dim`, of the bound.

    Raises:
      ValueError: If both free bits and a capacity are given, or a number is below zero.
    """
    del train
    if free_bits is not None and capacity is not None:
        raise ValueError(
            f"free_bits and capacity exclude each other, got {free_bits} and {capacity}"
        )
    beta = check_number("beta", beta, 0)
    terms = evidence(model, variables, batch, rng, context_key=context_key)
    metrics = elbo_metrics(terms)
    kl = metrics["kl"]
    if capacity is not None:
        penalty = jnp.abs(axis.mean(kl) - check_number("capacity", capacity, 0))
    elif free_bits is not None:
        free_bits = check_number("free_bits", free_bits, 0)
        groups = terms.latents.kl_by_group()
        parts = [terms.latents.kl.get(name, value) for name, value in groups.items()]
        averages = [axis.mean(jnp.mean(part, axis=0)) for part in parts]
        penalty = sum(jnp.sum(jnp.maximum(free_bits, average)) for average in averages)
    else:
        penalty = kl
    return metrics["reconstruction"] + beta * penalty, Aux(metrics, {})


def elbo_metrics(terms: Evidence) -> dict[str, Float[Array, ""]]:
    """Computes the bound and its terms, averaged over the rows at hand; see `elbo`."""
    groups = terms.latents.kl_by_group()
    reconstruction = -jnp.mean(terms.log_likelihood)
    kl = sum(jnp.mean(value) for value in groups.values())
    bound = reconstruction + kl
    metrics = {"negative_elbo": bound, "reconstruction": reconstruction, "kl": kl}
    if len(groups) > 1:
        metrics |= {f"kl/{name}": jnp.mean(value) for name, value in groups.items()}
    return metrics | {"bits_per_dim": bound / bits_of(terms.values)}


def bits_of(images: Float[Array, "batch height width channel"]) -> float:
    """Computes D log 2 for images of D dimensions, by which nats are divided for bits/dim."""
    return math.prod(images.shape[1:]) * math.log(2)


def reconstruction(
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, Array],
    rng: Array,
    *,
    axis: Axis = LOCAL,
    train: bool = True,
) -> tuple[Float[Array, ""], Aux]:
    """Computes the mean of -log p(x | f(x)), the reconstruction error of an auto-encoder.

    No bound on the likelihood of the images, as the latents have no distribution.

    Args:
      model: A `vaeflow.models.AutoEncoder`.

    Returns:
      The loss, which is the metric `reconstruction` too, and `reconstruction_per_dim`, in bits.

    Raises:
      ValueError: If the model isn't an auto-encoder.
    """
    del axis, train
    if not isinstance(model, AutoEncoder):
        raise ValueError(
            f"this objective is defined for an AutoEncoder, got a {type(model).__name__}"
        )
    values, log_det = model.apply(variables, entry(batch, "image"), rng, method="observe")
    likelihood = model.apply(variables, model.apply(variables, values), method="likelihood")
    nats = -jnp.mean(likelihood.log_prob(values) + log_det)
    metrics = {"reconstruction": nats, "reconstruction_per_dim": nats / bits_of(values)}
    return nats, Aux(metrics, {})
