"""The objectives of the FactorVAE: an auto-encoder's, and that of the discriminator beside it."""

from __future__ import annotations

from typing import Any

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vaeflow._util.axis import LOCAL, Axis
from vaeflow._util.random import row_keys
from vaeflow.distributions import Concrete
from vaeflow.distributions.grouped import groups_of
from vaeflow.estimators import Aux, context_of, evidence, require, split_rows
from vaeflow.losses.elbo import elbo_metrics
from vaeflow.models.base import submodel

MODEL, DISCRIMINATOR = "model", "discriminator"
ORDER = 2
"""Number of the draw of a row that orders the rows, after those of the observation and latents."""


def factor_vae(
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, Array],
    rng: Array,
    *,
    axis: Axis = LOCAL,
    train: bool = True,
    gamma: Float[Array, ""] | float = 10.0,
    context_key: str | None = None,
) -> tuple[Float[Array, ""], Aux]:
    """Computes the mean of the negative ELBO and gamma times the total correlation of the latents.

    TC = KL(q(z) || prod_d q(z_d)) of the aggregate posterior q(z) is estimated by the mean of
    log D(z) / (1 - D(z)), the logit of the discriminator D, over one sample of each posterior. It
    is the loss of the player "model"; the discriminator's own is `factor_vae_discriminator`.

    Source: Kim & Mnih 2018, "Disentangling by factorising", equations 2 and 3, algorithm 2.

    Args:
      model: A `vaeflow.models.FactorVAE`, or a module with its two players.
      variables: The model's variables, those of each player under its name.
      batch: ``{"image": [batch, height, width, channel], ...}``.
      rng: A typed key, or one for each row.
      axis: Unused, as the rows aren't coupled but through the discriminator's parameters.
      train: Unused, as the model behaves alike in training and in evaluation.
      gamma: Weight of the total correlation.
      context_key: Name of the entry of the batch that is the model's context, or None.

    Returns:
      The loss in nats, and the metrics of `elbo` and `total_correlation`, in nats.

    Raises:
      ValueError: If the model has no such players, or its "model" no single posterior.
    """
    del axis, train
    vae, own = submodel(model, variables, MODEL)
    require(vae, "posterior")
    discriminator, judge = submodel(model, variables, DISCRIMINATOR)
    found = evidence(vae, own, batch, rng, context_key=context_key)
    metrics = elbo_metrics(found, batch)
    total_correlation = jnp.mean(discriminator.apply(judge, found.latents.z[0]))
    loss = metrics["negative_elbo"] + gamma * total_correlation
    return loss, Aux(metrics | {"total_correlation": total_correlation}, {})


def factor_vae_discriminator(
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, Array],
    rng: Array,
    *,
    axis: Axis = LOCAL,
    train: bool = True,
    context_key: str | None = None,
) -> tuple[Float[Array, ""], Aux]:
    """Computes the cross entropy of the discriminator of a FactorVAE, the player "discriminator".

    1/2 E[-log D(z)] + 1/2 E[-log(1 - D(z'))], where z are samples of the posteriors of a batch and
    z' further samples of the same posteriors, of which every entry is put into another row; see
    `shuffled_entries`. (The paper draws z' from posteriors of another batch.) No gradient reaches
    the auto-encoder.

    Source: Kim & Mnih 2018, "Disentangling by factorising", algorithm 2.

    Args:
      model: As for `factor_vae`.
      variables: As for `factor_vae`.
      batch: As for `factor_vae`.
      rng: As for `factor_vae`.
      axis: How the batch is divided; entries move between rows of all of it.
      train: As for `factor_vae`.
      context_key: As for `factor_vae`.

    Returns:
      The loss in nats, and the metric `accuracy`: the share of z and z' that the discriminator
      takes for what they are.

    Raises:
      ValueError: As for `factor_vae`, or if the batch has a single row.
    """
    del train
    vae, own = submodel(model, variables, MODEL)
    require(vae, "posterior")
    discriminator, judge = submodel(model, variables, DISCRIMINATOR)
    images, context = batch["image"], context_of(batch, context_key)
    first, second = split_rows(rng, images.shape[0])
    values = vae.apply(own, images, first, method="observe").values
    latents = vae.apply(own, values, second, 2, context, method="infer")
    z, others = jax.lax.stop_gradient(latents.z)
    entries = entry_numbers(vae.apply(own, values, context, method="posterior"))
    joint = discriminator.apply(judge, z)
    product = discriminator.apply(judge, shuffled_entries(others, rng, entries, axis=axis))
    loss = 0.5 * (jnp.mean(jax.nn.softplus(-joint)) + jnp.mean(jax.nn.softplus(product)))
    right = 0.5 * (jnp.mean(joint > 0) + jnp.mean(product <= 0))
    return loss, Aux({"accuracy": right}, {})


def entry_numbers(posterior: distrax.Distribution) -> Int[np.ndarray, " latent"]:
    """Numbers the entries of a vector of latents; those of a `Concrete` variable are one."""
    numbers: list[int] = []
    for part in groups_of(posterior).values():
        start = numbers[-1] + 1 if numbers else 0
        (size,) = part.event_shape
        one = isinstance(part, Concrete)
        numbers += [start] * size if one else range(start, start + size)
    return np.asarray(numbers)


def shuffled_entries(
    z: Float[Array, "row latent"],
    rng: Array,
    entries: Int[np.ndarray, " latent"] | None = None,
    *,
    axis: Axis = LOCAL,
) -> Float[Array, "row latent"]:
    """Puts every entry of every vector into another row, independently of the other entries.

    What was a sample of each row of a joint distribution becomes one of the product of its
    marginals. Each entry goes round a random cycle of all rows, so that none stays where it was.

    Source: Kim & Mnih 2018, algorithm 1, with any permutation for a cycle.

    Args:
      z: The vectors at hand, all of the batch or a device's share.
      rng: A typed key, or one for each row, on which the cycles depend however the batch is
        divided.
      entries: Number of the entry that each latent belongs to; None where each is one by itself.
      axis: How the batch is divided.

    Raises:
      ValueError: If the batch has a single row.
    """
    rows, latents = z.shape
    entries = np.arange(latents) if entries is None else entries
    keys = jax.vmap(jax.random.fold_in, (0, None))(row_keys(rng, rows), ORDER)
    place = jax.vmap(lambda key: jax.random.bits(key, (latents,)))(keys)[:, entries]
    every, places = axis.gather((z, place))
    if every.shape[0] < 2:
        raise ValueError("the batch must hold 2 rows or more to shuffle its entries, got 1")

    def next_of(values: Array, places: Array, place: Array) -> Array:
        order = jnp.argsort(places)
        rank = jnp.searchsorted(places[order], place)
        return values[order[(rank + 1) % values.shape[0]]]

    return jax.vmap(next_of, in_axes=1, out_axes=1)(every, places, place)
