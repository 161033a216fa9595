"""Latent-variable models: their shared methods, the result of inference, and their submodels.

`LatentVariableModel` is the base class of `VAE` and `HierarchicalVAE`, `Latents` the samples and
densities that their `infer` returns. `submodel` and `merge_submodels` split and merge the variables
of models of several parts, such as a generator and its discriminator.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import distrax
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from vaeflow._util.arrays import row_keys
from vaeflow._util.checks import as_array, bound, check_count, check_keys, encode_labels
from vaeflow.models.preprocessing import Dequantized, check_observation

PyTree = Any


class Latents(NamedTuple):
    """Samples of q(z | x) with their densities, in nats, by group of latents.

    Attributes:
      z: The samples, ``[sample, batch, latent]``, or a pytree of such where the model has several
        groups.
      log_q: log q of each group by name, given the groups sampled before it, ``[sample, batch]``.
      log_p: The same under the prior.
      kl: KL(q || p) of each latent of a group, ``[batch, latent]``, by name, for groups where both
        sides are known to have it in closed form; averaged over samples of the groups above it,
        where it depends on them.
      posterior: q(z | x), ``[batch]`` distributions; None where the model has it level by level
        only, as a `HierarchicalVAE` does.
      prior: p(z), with the batch axes of its context; None where `posterior` is.
    """

    z: PyTree
    log_q: dict[str, Float[Array, "sample batch"]]
    log_p: dict[str, Float[Array, "sample batch"]]
    kl: dict[str, Float[Array, "batch latent"]]
    posterior: distrax.Distribution | None = None
    prior: distrax.Distribution | None = None

    def log_ratio(self) -> Float[Array, "sample batch"]:
        """Computes log p(z) - log q(z | x), over all groups."""
        return sum(self.log_p[name] - self.log_q[name] for name in self.log_q)

    def kl_by_group(self) -> dict[str, Float[Array, " batch"]]:
        """Computes KL(q || p) of each group, in closed form or else from the samples."""
        return {
            name: (
                self.kl[name].sum(-1)
                if name in self.kl
                else (self.log_q[name] - self.log_p[name]).mean(0)
            )
            for name in self.log_q
        }


class LatentVariableModel(nn.Module):
    """Latents z ~ p(z), images x ~ p(x | z).

    A subclass has the fields `decoder`, `observation` and `num_classes`, as `VAE` describes them,
    and the methods `prior`, `infer` and `encode`; `posterior` too where q(z | x) is one
    distribution, which some objectives need. Its call initialises all parts from the first batch.

    Raises a ValueError when it is made of a preprocessor and a likelihood that don't fit.
    """

    def __post_init__(self):
        check_observation(self.observation, self.decoder)
        super().__post_init__()

    def observe(
        self, images: UInt8[Array, "batch height width channel"], rng: Array
    ) -> Dequantized:
        """Converts uint8 images to the values that the likelihood is defined on.

        Args:
          images: Images of dtype uint8.
          rng: A typed key, or one for each row.
        """
        images = as_array("images", images)
        return self.observation(images, row_keys(rng, images.shape[0]))

    @bound
    def likelihood(
        self, z: Float[Array, "*batch latent"], *, context: Array | None = None
    ) -> distrax.Distribution:
        """Builds p(x | z), one distribution of observed values for each z.

        Raises:
          ValueError: If there are labels without classes or classes without labels, or labels whose
            axes don't broadcast to those of z.
        """
        labels = encode_labels(context, self.num_classes)
        return self.decoder(as_array("z", z), context=labels)

    @bound
    def sample(
        self,
        rng: Array,
        num_samples: int,
        *,
        context: Array | None = None,
        temperature: float = 1.0,
    ) -> UInt8[Array, "num_samples *batch height width channel"]:
        """Samples z from the prior and returns the means of p(x | z) as images.

        Args:
          rng: A typed key.
          num_samples: Number of images, for each label if there are some.
          context: Labels ``[*batch]``, or None.
          temperature: As for `prior`.
        """
        check_keys(rng)
        check_count("num_samples", num_samples, 0)
        encode_labels(context, self.num_classes)
        prior = self.prior(context=context, temperature=temperature)
        # A prior without the labels is sampled once for each of them.
        labels = jnp.shape(context)[len(prior.batch_shape) :] if context is not None else ()
        z = prior.sample(seed=rng, sample_shape=(num_samples, *labels))
        return self.decode(z, context=context)

    @bound
    def decode(
        self, z: Float[Array, "*batch latent"], *, context: Array | None = None
    ) -> UInt8[Array, "*batch height width channel"]:
        """Returns the means of p(x | z) as images."""
        return self.observation.quantize(self.likelihood(z, context=context).mean())


def submodel(
    model: nn.Module, variables: Mapping[str, Any], name: str
) -> tuple[nn.Module, dict[str, Any]]:
    """Splits one part off a model of several: a module and its variables, to apply or save alone.

    Args:
      model: A module that holds the part, such as `FactorVAE` or `CodeModel`.
      variables: The model's variables.
      name: Name of the part, such as "model" or "discriminator"; "priors_0" is the first of the
        sequence `priors`.

    Returns:
      The module of the part, and its variables in each collection that holds some.

    Raises:
      ValueError: If "params" holds no such part.
    """
    if name not in variables["params"]:
        raise ValueError(f"name must be among {sorted(variables['params'])}, got {name!r}")
    params = {collection: tree[name] for collection, tree in variables.items() if name in tree}
    if hasattr(model, name):
        return getattr(model, name), params
    sequence, _, number = name.rpartition("_")
    return getattr(model, sequence)[int(number)], params


def merge_submodels(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Merges the variables of parts into those of their model: the inverse of `submodel`.

    Args:
      parts: Variables by the names of the parts.
    """
    collections = dict.fromkeys(name for part in parts.values() for name in part)
    return {
        collection: {name: part[collection] for name, part in parts.items() if collection in part}
        for collection in collections
    }
