"""Gaussianization flows."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow import bijectors
from vaeflow.bijectors import Chain, Householder, MixtureGaussianization
from vaeflow.bijectors.gaussianization import mixture_of_quantiles
from vaeflow.flows.base import VectorFlow
from vaeflow.flows.classic import affine_in_context, at_context


class GaussianizationFlow(VectorFlow):
    """K steps that make each entry normal and turn what they get, from data to noise.

    Each step sends every entry through the distribution function of a mixture of normals and to the
    normal scale, and multiplies the vector by an orthogonal matrix. Mixtures start at quantiles of
    what reaches them of the first batch, and matrices at random, so that every step makes the
    marginals near normal before any training, and the more steps the closer the joint distribution
    comes. Parameters of the mixtures are affine in the context.

    Densities are the cheap direction; a sample solves a scalar equation for each entry and step.

    Shapes: noise and data are ``[*batch, channel]``.

    Source: Meng, Song, Song & Ermon 2020, "Gaussianization flows"; the start, Laparra, Camps-Valls
    & Malo 2011, "Iterative Gaussianization: from ICA to random rotations".

    Attributes:
      num_components: Number of normals of each mixture.
      num_reflections: Number of Householder reflections of each matrix; as many as channels, where it
        is None, make every orthogonal matrix of their sign.
    """

    num_components: int = 16
    num_reflections: int | None = None

    to_noise = True

    def step(self) -> _GaussianizationStep:
        """Builds the step, from data to noise."""
        channels = self.event_shape[0]
        reflections = channels if self.num_reflections is None else self.num_reflections
        return _GaussianizationStep(
            channels, num_components=self.num_components, num_reflections=reflections
        )


@dataclasses.dataclass(frozen=True)
class _GaussianizationStep:
    """A map of each entry to the normal scale, then a rotation, from data to noise.

    Attributes:
      channels: Number of entries of a vector.
      num_components: Number of normals of each mixture.
      num_reflections: Number of Householder reflections.
    """

    channels: int
    num_components: int = 16
    num_reflections: int = 1

    event_ndims = 1
    collections = ("params",)

    def init(
        self, key: Array, data: Float[Array, "batch channel"], context: Array | None
    ) -> dict[str, Any]:
        """Takes mixtures from quantiles of the data, and draws an orthogonal matrix."""
        keys = jax.random.split(key)
        centres, log_scales = mixture_of_quantiles(data, self.num_components)
        base = {
            "weights": jnp.zeros((self.channels, self.num_components)),
            "centres": centres,
            "log_scales": log_scales,
        }
        shape = (self.num_reflections, self.channels)
        reflections = jax.random.normal(keys[1], shape)
        return {
            "params": {
                "mixture": affine_in_context(keys[0], base, context),
                "reflections": reflections,
            }
        }

    def __call__(self, variables: dict[str, Any], context: Array | None) -> bijectors.Bijector:
        """Builds the step from its variables."""
        parameters = variables["params"]
        mixture = MixtureGaussianization(**at_context(parameters["mixture"], context))
        return Chain([Householder(parameters["reflections"]), mixture])
