"""Posteriors of several groups, discrete ones among them."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.distributions import Concrete, Grouped


class ConcretePosterior(nn.Module):
    """A relaxed categorical variable: q(z | x) = Concrete(logits(h), temperature).

    Source: Maddison, Mnih & Teh 2017, "The Concrete distribution", whose experiments have 2/3.

    Attributes:
      latents: Number of categories, and so of entries.
      temperature: How far samples are from the corners of the simplex.
    """

    latents: int
    temperature: float = 0.66

    @nn.compact
    def __call__(self, features: Float[Array, "batch feature"]) -> Concrete:
        """Builds the distributions, events ``[category]``."""
        return Concrete(nn.Dense(self.latents, name="logits")(features), self.temperature)

    def standard(self, temperature: float = 1.0) -> Concrete:
        """The prior that goes with it: all categories alike, whatever the factor of deviations."""
        del temperature
        return Concrete(jnp.zeros(self.latents), self.temperature)


class GroupedPosterior(nn.Module):
    """Independent groups of latents, each with a posterior of its own.

    Attributes:
      groups: Posteriors by name, in the order of their latents; each has `latents` and `standard`.
    """

    groups: Mapping[str, nn.Module]

    @property
    def latents(self) -> int:
        """Number of latents."""
        return sum(group.latents for group in self.groups.values())

    def __call__(self, features: Float[Array, "batch feature"]) -> Grouped:
        """Builds the distributions, events ``[latent]``."""
        return Grouped({name: group(features) for name, group in self.groups.items()})

    def standard(self, temperature: float = 1.0) -> Grouped:
        """The prior that goes with it: that of each group."""
        return Grouped({name: group.standard(temperature) for name, group in self.groups.items()})
