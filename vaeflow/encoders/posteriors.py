"""Posterior heads, q(z | x) from features: Gaussian, Concrete, grouped, flow and point mass.

Each has `num_latents`, a default prior `standard` and the protocol of `vaeflow.typing.Posterior`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict
from jaxtyping import Array, Float

from vaeflow._util.checks import check_part, check_sizes
from vaeflow.distributions import Concrete, FullGaussian, Grouped, Transformed, standard_normal
from vaeflow.distributions.gaussian import Normal
from vaeflow.typing import Flow, Posterior


class _Head(nn.Module):
    """A head over `num_latents` latents, whose default prior is a standard normal."""

    has_density: ClassVar[bool] = True

    def __post_init__(self):
        check_sizes(self)
        super().__post_init__()

    def standard(self, temperature: float = 1.0) -> distrax.Distribution:
        """Builds the default prior: a standard normal, its deviation times a temperature."""
        return standard_normal((self.num_latents,), (), temperature)

    def location(self, distribution: distrax.Distribution) -> Float[Array, "batch latent"]:
        """Computes the mean of a distribution that the call returned."""
        return distribution.mean()


class PointMassPosterior(_Head):
    """A point mass: q(z | x) = delta(z - m(h)), with m linear in the features h.

    It has no density, so `vaeflow.models.VAE.infer` raises ValueError; `vaeflow.losses.munit`
    needs none.

    Attributes:
      num_latents: Number of latents.
    """

    num_latents: int

    has_density: ClassVar[bool] = False

    @nn.compact
    def __call__(self, features: Float[Array, "batch feature"]) -> distrax.Independent:
        """Builds the distributions, events ``[latent]``, in float32 or wider."""
        value = nn.Dense(self.num_latents)(features)
        tolerance = jnp.zeros_like(value)  # with the axes of the value, so that rows can be mapped
        return distrax.Independent(distrax.Deterministic(value, tolerance, tolerance), 1)


SMALLEST_SCALE = 1e-6
"""Least deviation of a latent: far below it, log-densities lose precision."""


def positive(raw: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Maps any number to a deviation: a softplus that is one at zero and linear in large numbers.

    An exponential would overflow at 89, and its gradients explode long before.
    """
    return jax.nn.softplus(raw + math.log(math.e - 1)) + SMALLEST_SCALE


class DiagonalGaussianPosterior(_Head):
    """Independent normals: q(z | x) = N(mean(h), diag(scale(h))^2), both linear in the features h.

    The scale passes a softplus; it is one where the linear part is zero.

    Source: Kingma & Welling 2014, "Auto-encoding variational Bayes", appendix C.2.

    Attributes:
      num_latents: Number of latents.
    """

    num_latents: int

    @nn.compact
    def __call__(self, features: Float[Array, "batch feature"]) -> distrax.Independent:
        """Builds the distributions, events ``[latent]``, in float32 or wider."""
        mean = nn.Dense(self.num_latents, name="mean")(features)
        scale = positive(nn.Dense(self.num_latents, name="scale")(features))
        return distrax.Independent(Normal(mean, scale), 1)


class FullGaussianPosterior(_Head):
    """Correlated normals: q(z | x) = N(mean(h), L(h) L(h)^T) with features h.

    L is lower triangular: below the diagonal it is linear in the features, its diagonal passes a
    softplus. There are D (D + 3) / 2 numbers for D latents.

    Source: Kingma & Welling 2019, "An introduction to variational autoencoders", section 2.5.1.

    Attributes:
      num_latents: Number of latents.
    """

    num_latents: int

    @nn.compact
    def __call__(self, features: Float[Array, "batch feature"]) -> FullGaussian:
        """Builds the distributions, events ``[latent]``, in float32 or wider."""
        mean = nn.Dense(self.num_latents, name="mean")(features)
        scale = positive(nn.Dense(self.num_latents, name="scale")(features))
        rows, columns = jnp.tril_indices(self.num_latents, -1)
        below = nn.Dense(len(rows), name="below", kernel_init=nn.initializers.zeros)(features)
        factor = scale[..., None] * jnp.eye(self.num_latents, dtype=scale.dtype)
        factor = factor.at[..., rows, columns].set(below)
        return FullGaussian(mean, factor)


class ConcretePosterior(_Head):
    """A relaxed categorical variable: q(z | x) = Concrete(logits(h), temperature).

    Source: Maddison, Mnih & Teh 2017, "The Concrete distribution", whose experiments have 2/3.

    Attributes:
      num_latents: Number of categories, each a latent.
      temperature: How far samples are from the corners of the simplex.
    """

    num_latents: int
    temperature: float = 0.66

    @nn.compact
    def __call__(self, features: Float[Array, "batch feature"]) -> Concrete:
        """Builds the distributions, events ``[category]``."""
        return Concrete(nn.Dense(self.num_latents, name="logits")(features), self.temperature)

    def standard(self, temperature: float = 1.0) -> Concrete:
        """Builds the default prior: equally likely categories; the temperature is ignored."""
        del temperature
        return Concrete(jnp.zeros(self.num_latents, jnp.float32), self.temperature)

    def location(self, distribution: Concrete) -> Float[Array, "batch latent"]:
        """Computes the probabilities of the categories; the mean has no closed form."""
        return distribution.probability


class GroupedPosterior(_Head):
    """Independent groups of latents, each with its head: q(z | x) = prod_g q(z^g | x).

    Attributes:
      groups: Heads by name, in the order of their latents.
    """

    groups: Mapping[str, Posterior]

    def __post_init__(self):
        # Models are arguments of compiled functions, and must be hashable.
        self.groups = FrozenDict(self.groups)
        super().__post_init__()

    @property
    def num_latents(self) -> int:
        """Number of latents."""
        return sum(group.num_latents for group in self.groups.values())

    @property
    def has_density(self) -> bool:
        """Whether all groups have a density."""
        return all(group.has_density for group in self.groups.values())

    def __call__(self, features: Float[Array, "batch feature"]) -> Grouped:
        """Builds the distributions, events ``[latent]``."""
        return Grouped({name: group(features) for name, group in self.groups.items()})

    def standard(self, temperature: float = 1.0) -> Grouped:
        """Builds the default prior: that of each group."""
        return Grouped({name: group.standard(temperature) for name, group in self.groups.items()})

    def location(self, distribution: Grouped) -> Float[Array, "batch latent"]:
        """Computes the vectors of the groups, one after another."""
        parts = [self.groups[name].location(part) for name, part in distribution.groups.items()]
        return jnp.concatenate(parts, axis=-1)


class FlowPosterior(_Head):
    """A flow posterior: z = f(e; h) with noise e ~ q0(e | x).

    log q(z | x) = log q0(e | x) - log|det df/de|. The base and, where `amortised`, the parameters
    of the flow follow the features h. Samples with their densities are cheap where the flow's
    forward is (planar, radial, Sylvester, inverse autoregressive, couplings); the density of a
    given z takes its inverse, which for planar, radial and Sylvester flows is solved numerically
    step by step and for inverse autoregressive ones goes dimension by dimension.

    Source: Rezende & Mohamed 2015, "Variational inference with normalizing flows", section 4.2.

    Attributes:
      base: The head of the noise, such as `DiagonalGaussianPosterior`.
      flow: A flow of vectors, of as many dimensions as the base has latents.
      amortised: Whether the features are the flow's context.
    """

    base: Posterior
    flow: Flow
    amortised: bool = True

    def __post_init__(self):
        super().__post_init__()
        check_part("base", self.base, "a posterior head", ("num_latents", "has_density"))
        check_part("flow", self.flow, "a flow", ("event_shape", "noise_shape", "context_ndims"))
        shapes = tuple(self.flow.event_shape), tuple(self.flow.noise_shape)
        if shapes != ((self.base.num_latents,),) * 2:
            raise ValueError(
                f"flow must map vectors of the base's {self.base.num_latents} latents, got noise "
                f"of shape {shapes[1]} and events of shape {shapes[0]}"
            )

    @property
    def num_latents(self) -> int:
        """Number of latents."""
        return self.base.num_latents

    @property
    def has_density(self) -> bool:
        """Whether the base has a density."""
        return self.base.has_density

    def standard(self, temperature: float = 1.0) -> distrax.Distribution:
        """Builds the default prior: that of the base."""
        return self.base.standard(temperature)

    def location(self, distribution: Transformed) -> Float[Array, "batch latent"]:
        """Computes the image of the base's mean under the flow; the mean has no closed form."""
        return distribution.bijector.forward(self.base.location(distribution.distribution))

    def __call__(self, features: Float[Array, "batch feature"]) -> Transformed:
        """Builds the distributions.

        Raises:
          ValueError: If the shapes of the flow's noise and of the base's samples differ.
        """
        base: distrax.Distribution = self.base(features)
        if base.event_shape != tuple(self.flow.noise_shape):
            raise ValueError(
                f"flow must have noise of the shape of the base's samples, {base.event_shape}, got "
                f"{tuple(self.flow.noise_shape)}"
            )
        return Transformed(base, self.flow(context=features if self.amortised else None))
