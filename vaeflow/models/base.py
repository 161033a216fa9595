"""Latent-variable models, the result of inference, and adversarial submodels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from vaeflow._util.random import row_keys
from vaeflow.flows.base import prepare_context
from vaeflow.models.preprocessing import Dequantized

PyTree = Any


class Latents(NamedTuple):
    """Samples of q(z | x) with their densities, in nats, by group of latents.

    Attributes:
      z: The samples, ``[sample, batch, latent]``, or a pytree of such where the model has several
        groups.
      log_q: log q of each group by name, given the groups drawn before it, ``[sample, batch]``.
      log_p: The same under the prior.
      kl: KL(q || p) of each latent of a group, ``[batch, latent]``, by name, for groups where both
        sides are known to have it in closed form; averaged over samples of the groups above it,
        where it depends on them.
    """

    z: PyTree
    log_q: dict[str, Float[Array, "sample batch"]]
    log_p: dict[str, Float[Array, "sample batch"]]
    kl: dict[str, Float[Array, "batch latent"]]

    def log_ratio(self) -> Float[Array, "sample batch"]:
        """Computes log p(z) - log q(z | x), over all groups."""
        return sum(self.log_p[name] - self.log_q[name] for name in self.log_q)

    def kl_by_group(self) -> dict[str, Float[Array, " batch"]]:
        """KL(q || p) of each group: in closed form where there is one, else from the samples."""
        return {
            name: (
                self.kl[name].sum(-1)
                if name in self.kl
                else (self.log_q[name] - self.log_p[name]).mean(0)
            )
            for name in self.log_q
        }


def stopped(tree: PyTree) -> PyTree:
    """Stops gradients through every leaf."""
    return jax.tree.map(jax.lax.stop_gradient, tree)


class LatentVariableModel(nn.Module):
    """Latents z ~ p(z), images x ~ p(x | z).

    A subclass has the fields `decoder`, `observation` and `classes`, as `VAE` describes them, and
    answers `prior`, `infer` and `encode`.
    """

    def observe(
        self, images: UInt8[Array, "batch height width channel"], rng: Array
    ) -> Dequantized:
        """Turns images into what the distributions speak of.

        Args:
          images: Images of dtype uint8.
          rng: A typed key, or one for each row.
        """
        return self.observation(images, row_keys(rng, images.shape[0]))

    def likelihood(
        self, z: Float[Array, "*batch latent"], context: Array | None = None
    ) -> distrax.Distribution:
        """Builds p(x | z), one distribution of observed values for each z."""
        return self.decoder(z, prepare_context(context, self.num_classes))

    def sample(
        self, rng: Array, count: int, context: Array | None = None, *, temperature: float = 1.0
    ) -> UInt8[Array, "count *batch height width channel"]:
        """Draws z from the prior and shows the means of p(x | z) as images.

        Args:
          rng: A typed key.
          count: Number of images, for each label if there are some.
          context: Labels ``[*batch]``, or None.
          temperature: As for `prior`.
        """
        prior = self.prior(context, temperature=temperature)
        # A prior of all classes draws once for each label.
        labels = jnp.shape(context)[len(prior.batch_shape) :] if context is not None else ()
        z = prior.sample(seed=rng, sample_shape=(count, *labels))
        return self.decode(z, context)

    def decode(
        self, z: Float[Array, "*batch latent"], context: Array | None = None
    ) -> UInt8[Array, "*batch height width channel"]:
        """Shows the means of p(x | z) as images."""
        return self.observation.quantize(self.likelihood(z, context).mean())


def submodel(
    model: nn.Module, variables: Mapping[str, Any], name: str
) -> tuple[nn.Module, dict[str, Any]]:
    """Takes one player out of a model of several: a module and its variables, to apply it alone.

    What it returns is all that there is to say of the player, so it is also what to save of it and
    to share.

    Args:
      model: A module that holds the player, such as `FactorVAE` or `CodeModel`.
      variables: The model's variables.
      name: Name of the player, such as "model" or "discriminator"; "priors_0" is the first of the
        sequence `priors`.

    Returns:
      The player's module, and its part of each collection that it has a part of.

    Raises:
      ValueError: If "params" holds no such player.
    """
    if name not in variables["params"]:
        raise ValueError(f"name must be among {sorted(variables['params'])}, got {name!r}")
    own = {collection: tree[name] for collection, tree in variables.items() if name in tree}
    if hasattr(model, name):
        return getattr(model, name), own
    sequence, _, number = name.rpartition("_")
    return getattr(model, sequence)[int(number)], own


def merge_submodels(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Makes the variables of a model of those of its parts, which `submodel` takes apart again.

    Args:
      parts: Variables by the names of the parts.
    """
    collections = dict.fromkeys(name for part in parts.values() for name in part)
    return {
        collection: {name: part[collection] for name, part in parts.items() if collection in part}
        for collection in collections
    }
