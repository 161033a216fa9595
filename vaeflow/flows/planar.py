"""Planar flows."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vaeflow import bijectors
from vaeflow.flows.affine_context import NOISE, affine_in_context, at_context
from vaeflow.flows.vector import VectorFlow


class PlanarFlow(VectorFlow):
    """K planar maps, each of which stretches space along one direction.

    Noise to data is the cheap direction, at the cost of two inner products a step; the other solves
    a scalar equation a step. All parameters of all steps are affine in the context, so that as a
    posterior the flow is one of its own for each example. It starts near the identity.

    Shapes: noise and data are ``[*batch, channel]``.

    Source: Rezende & Mohamed 2015, "Variational inference with normalizing flows", section 4.

    Attributes:
      negative_slope: None for tanh; the slope below zero, in [0, 1), for a leaky ReLU.
    """

    negative_slope: float | None = None

    to_noise = False

    def step(self) -> _PlanarStep:
        """Builds the step, from noise to data."""
        return _PlanarStep(self.event_shape[0], self.negative_slope)


@dataclasses.dataclass(frozen=True)
class _PlanarStep:
    """One planar map whose parameters are affine in the context, from noise to data.

    Attributes:
      channels: Number of entries of a vector.
      negative_slope: None for tanh; the slope below zero, in [0, 1), for a leaky ReLU.
    """

    channels: int
    negative_slope: float | None = None

    event_ndims = 1
    collections = ("params",)

    def init(self, key: Array, data: Array, context: Array | None) -> dict[str, Any]:
        """Draws a plane through one of the data, and leaves them nearly unchanged."""
        keys = jax.random.split(key, 4)
        weight = jax.random.normal(keys[0], (self.channels,))
        weight = weight / jnp.linalg.norm(weight)
        # Where w . u = log(e - 1), the constraint makes u_hat orthogonal to w; along w it is zero.
        scale = math.log(math.e - 1) * weight
        scale = scale + NOISE * jax.random.normal(keys[1], (self.channels,))
        # Planes through one point would all bend space there alone.
        bias = -jnp.sum(weight * jax.random.choice(keys[2], data))
        base = {"weight": weight, "scale": scale, "bias": bias}
        return {"params": affine_in_context(keys[3], base, context)}

    def __call__(self, variables: dict[str, Any], context: Array | None) -> bijectors.Planar:
        """Builds the step from its variables."""
        parameters = at_context(variables["params"], context)
        return bijectors.Planar(**parameters, negative_slope=self.negative_slope)
