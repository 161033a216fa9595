"""Radial flows."""

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


class RadialFlow(VectorFlow):
    """K radial maps, each of which draws space towards a centre or pushes it away.

    Both directions are in closed form and cost the same. All parameters of all steps are affine in
    the context, so that as a posterior the flow is one of its own for each example. It starts near
    the identity.

    Shapes: noise and data are ``[*batch, channel]``.

    Source: Rezende & Mohamed 2015, "Variational inference with normalizing flows", section 4.
    """

    to_noise = False

    def step(self) -> _RadialStep:
        """Builds the step, from noise to data."""
        return _RadialStep(self.event_shape[0])


@dataclasses.dataclass(frozen=True)
class _RadialStep:
    """One radial map whose parameters are affine in the context, from noise to data.

    Attributes:
      channels: Number of entries of a vector.
    """

    channels: int

    event_ndims = 1
    collections = ("params",)

    def init(self, key: Array, data: Array, context: Array | None) -> dict[str, Any]:
        """Draws a centre like standard normal noise, and leaves the data nearly unchanged."""
        keys = jax.random.split(key, 3)
        raw_alpha = jnp.asarray(math.log(math.e - 1))  # alpha = 1
        base = {
            "center": jax.random.normal(keys[0], (self.channels,)),
            "raw_alpha": raw_alpha,
            "raw_beta": raw_alpha + NOISE * jax.random.normal(keys[1]),
        }
        return {"params": affine_in_context(keys[2], base, context)}

    def __call__(self, variables: dict[str, Any], context: Array | None) -> bijectors.Radial:
        """Builds the step from its variables."""
        return bijectors.Radial(**at_context(variables["params"], context))
