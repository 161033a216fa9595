"""Posterior heads: from features to q(z | x)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.distributions import Concrete, FullGaussian, Grouped, Transformed, standard_normal


class PointMassPosterior(nn.Module):
    """A single value, q(z | x) = delta(z - m(h)), with m linear in the features h.

    It has no density, so no bound on a likelihood takes it (`vaeflow.models.VAE.infer` refuses it);
    `vaeflow.losses.munit` does.

    Attributes:
      num_latents: Number of latents.
    """

    num_latents: int

    @nn.compact
    def __call__(self, features: Float[Array, "batch feature"]) -> distrax.Independent:
        """Builds the distributions, events ``[latent]``, in float32 or wider."""
        value = nn.Dense(self.num_latents)(features)
        exactly = jnp.zeros_like(value)  # with the axes of the value, so that rows can be mapped
        return distrax.Independent(distrax.Deterministic(value, exactly, exactly), 1)

    def standard(self, temperature: float = 1.0) -> distrax.Distribution:
        """The prior that goes with it: a standard normal, its deviation times a temperature."""
        return standard_normal((self.num_latents,), (), temperature)


SMALLEST_SCALE = 1e-6
"""Least deviation of a latent: far below, log-densities lose their digits."""


def positive(raw: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Makes a deviation of any number: softplus, which is one at zero and linear in large numbers.

    An exponential would overflow at 89, and its gradients explode long before.
    """
    return jax.nn.softplus(raw + math.log(math.e - 1)) + SMALLEST_SCALE


class DiagonalGaussianPosterior(nn.Module):
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
        return distrax.Independent(distrax.Normal(mean, scale), 1)

    def standard(self, temperature: float = 1.0) -> distrax.Distribution:
        """The prior that goes with it: a standard normal, its deviation times a temperature."""
        return standard_normal((self.num_latents,), (), temperature)


class FullGaussianPosterior(nn.Module):
    """Correlated normals: q(z | x) = N(mean(h), L(h) L(h)^T) with features h.

    L is lower triangular: entries below the diagonal are linear in the features, those on it pass a
    softplus. The features make latents (latents + 3) / 2 numbers.

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

    def standard(self, temperature: float = 1.0) -> distrax.Distribution:
        """The prior that goes with it: a standard normal, its deviation times a temperature."""
        return standard_normal((self.num_latents,), (), temperature)


class ConcretePosterior(nn.Module):
    """A relaxed categorical variable: q(z | x) = Concrete(logits(h), temperature).

    Source: Maddison, Mnih & Teh 2017, "The Concrete distribution", whose experiments have 2/3.

    Attributes:
      num_latents: Number of categories, and so of entries.
      temperature: How far samples are from the corners of the simplex.
    """

    num_latents: int
    temperature: float = 0.66

    @nn.compact
    def __call__(self, features: Float[Array, "batch feature"]) -> Concrete:
        """Builds the distributions, events ``[category]``."""
        return Concrete(nn.Dense(self.num_latents, name="logits")(features), self.temperature)

    def standard(self, temperature: float = 1.0) -> Concrete:
        """The prior that goes with it: all categories alike, whatever the factor of deviations."""
        del temperature
        return Concrete(jnp.zeros(self.num_latents), self.temperature)


class GroupedPosterior(nn.Module):
    """Independent groups of latents, each with a posterior of its own.

    Attributes:
      groups: Posteriors by name, in the order of their latents; each has `latents` and `standard`.
    """

    groups: Mapping[str, nn.Module]

    @property
    def num_latents(self) -> int:
        """Number of latents."""
        return sum(group.num_latents for group in self.groups.values())

    def __call__(self, features: Float[Array, "batch feature"]) -> Grouped:
        """Builds the distributions, events ``[latent]``."""
        return Grouped({name: group(features) for name, group in self.groups.items()})

    def standard(self, temperature: float = 1.0) -> Grouped:
        """The prior that goes with it: that of each group."""
        return Grouped({name: group.standard(temperature) for name, group in self.groups.items()})


class FlowPosterior(nn.Module):
    """A distribution of noise carried through a flow: z = f(e; h) with e ~ q0(e | x).

    log q(z | x) = log q0(e | x) - log|det df/de|. The base and, where `amortised`, the parameters
    of the flow follow the features h. Samples with their densities are cheap where the flow's
    forward is (planar, radial, Sylvester, inverse autoregressive, couplings); the density of a
    given z takes its inverse, which for planar, radial and Sylvester flows is a search for each
    step and for inverse autoregressive ones goes entry by entry.

    Source: Rezende & Mohamed 2015, "Variational inference with normalizing flows", section 4.2.

    Attributes:
      base: A posterior of the noise, such as `DiagonalGaussianPosterior`.
      flow: A flow of vectors, of as many entries as the base has latents.
      amortised: Whether the features are the flow's context.
    """

    base: nn.Module
    flow: nn.Module
    amortised: bool = True

    @property
    def num_latents(self) -> int:
        """Number of latents."""
        return self.base.num_latents

    def standard(self, temperature: float = 1.0) -> distrax.Distribution:
        """The prior that goes with it: that of the base."""
        return self.base.standard(temperature)

    def __call__(self, features: Float[Array, "batch feature"]) -> Transformed:
        """Builds the distributions.

        Raises:
          ValueError: If the flow's noise hasn't the shape of the base's samples.
        """
        base: distrax.Distribution = self.base(features)
        if base.event_shape != tuple(self.flow.noise_shape):
            raise ValueError(
                f"flow must have noise of the shape of the base's samples, {base.event_shape}, got "
                f"{tuple(self.flow.noise_shape)}"
            )
        return Transformed(base, self.flow(features if self.amortised else None))
