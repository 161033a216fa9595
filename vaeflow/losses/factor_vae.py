"""The two objectives of the FactorVAE: of its auto-encoder and of its discriminator.

The discriminator estimates the total correlation of the latents by density ratios; its negative
examples are samples whose dimensions are permuted over the batch.
"""

from __future__ import annotations

from typing import Any

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vaeflow._util.arrays import LOCAL, Axis, row_keys
from vaeflow._util.checks import check_number, require
from vaeflow.distributions import Concrete
from vaeflow.distributions.grouped import groups_of
from vaeflow.estimators import evidence, infer
from vaeflow.losses.elbo import elbo_metrics
from vaeflow.models.base import submodel
from vaeflow.typing import Aux

MODEL, DISCRIMINATOR = "model", "discriminator"
ORDER = 2
"""Number that is folded into the key of a row to permute the rows."""


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
      gamma: Weight of the total correlation.

    Returns:
      The loss, and the metrics of `elbo` and `total_correlation`.

    Raises:
      ValueError: If the model has no such players, or its "model" no single posterior; or
        gamma is below zero.
    """
    del axis, train
    gamma = check_number("gamma", gamma, 0)
    vae, vae_variables = submodel(model, variables, MODEL)
    require(vae, "posterior")
    discriminator, discriminator_variables = submodel(model, variables, DISCRIMINATOR)
    terms = evidence(vae, vae_variables, batch, rng, context_key=context_key)
    metrics = elbo_metrics(terms)
    logits = discriminator.apply(discriminator_variables, terms.latents.z[0])
    total_correlation = jnp.mean(logits)
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
    z' further samples of the same posteriors, of which every dimension is moved to another row; see
    `permute_dimensions`. (The paper samples z' from posteriors of another batch.) No gradient
    reaches the auto-encoder.

    Source: Kim & Mnih 2018, "Disentangling by factorising", algorithm 2.

    Args:
      model: As for `factor_vae`.

    Returns:
      The loss, and the metric `accuracy`: the share of z and z' that the discriminator classifies
      correctly.

    Raises:
      ValueError: As for `factor_vae`, or if the batch has a single row.
    """
    del train
    vae, vae_variables = submodel(model, variables, MODEL)
    require(vae, "posterior")
    discriminator, discriminator_variables = submodel(model, variables, DISCRIMINATOR)
    latents = infer(vae, vae_variables, batch, rng, num_samples=2, context_key=context_key).latents
    z, others = jax.lax.stop_gradient(latents.z)
    permuted = permute_dimensions(others, rng, variable_of_latents(latents.posterior), axis=axis)
    joint = discriminator.apply(discriminator_variables, z)
    product = discriminator.apply(discriminator_variables, permuted)
    loss = 0.5 * (jnp.mean(jax.nn.softplus(-joint)) + jnp.mean(jax.nn.softplus(product)))
    accuracy = 0.5 * (jnp.mean(joint > 0) + jnp.mean(product <= 0))
    return loss, Aux({"accuracy": accuracy}, {})


def variable_of_latents(posterior: distrax.Distribution) -> Int[np.ndarray, " latent"]:
    """Numbers the variable that each latent belongs to; a `Concrete` variable has several."""
    numbers: list[int] = []
    for part in groups_of(posterior).values():
        start = numbers[-1] + 1 if numbers else 0
        (size,) = part.event_shape
        one = isinstance(part, Concrete)
        numbers += [start] * size if one else range(start, start + size)
    return np.asarray(numbers)


def permute_dimensions(
    z: Float[Array, "row latent"],
    rng: Array,
    variable_of_latent: Int[np.ndarray, " latent"] | None = None,
    *,
    axis: Axis = LOCAL,
) -> Float[Array, "row latent"]:
    """Permutes each dimension over the rows, independently of the other dimensions.

    Samples of a joint distribution become samples of the product of its marginals. Each dimension
    is moved along a random cycle of all rows, so that none stays in its row.

    Source: Kim & Mnih 2018, algorithm 1, with a cycle in place of any permutation.

    Args:
      z: The vectors at hand, all of the batch or a device's share.
      rng: A typed key, or one for each row, on which the cycles depend however the batch is
        divided.
      variable_of_latent: Number of the variable that each latent belongs to, whose latents move
        together; None where each latent is one.
      axis: How the batch is divided.

    Raises:
      ValueError: If the batch has a single row.
    """
    rows, latents = z.shape
    if variable_of_latent is None:
        variable_of_latent = np.arange(latents)
    keys = jax.vmap(jax.random.fold_in, (0, None))(row_keys(rng, rows), ORDER)
    place = jax.vmap(lambda key: jax.random.bits(key, (latents,)))(keys)[:, variable_of_latent]
    all_z, places = axis.gather((z, place))
    if all_z.shape[0] < 2:
        raise ValueError("the batch must hold 2 rows or more to permute dimensions, got 1")

    def next_in_cycle(values: Array, places: Array, place: Array) -> Array:
        order = jnp.argsort(places)
        rank = jnp.searchsorted(places[order], place)
        return values[order[(rank + 1) % values.shape[0]]]

    return jax.vmap(next_in_cycle, in_axes=1, out_axes=1)(all_z, places, place)
