"""Sylvester flows."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vaeflow import bijectors
from vaeflow.flows.affine_context import NOISE, affine_in_context, at_context
from vaeflow.flows.sylvester_basis import HouseholderBasis, SylvesterBasis
from vaeflow.flows.vector import VectorFlow


class SylvesterFlow(VectorFlow):
    """K Sylvester maps, each of which bends space along several orthogonal directions at once.

    Noise to data is the cheap direction, at the cost of a few products with matrices a step; the
    other solves as many scalar equations a step as there are directions, one after another. All
    parameters of all steps are affine in the context, so that as a posterior the flow is one of its
    own for each example. It starts near the identity, up to the reversals of `IdentityBasis`.

    Shapes: noise and data are ``[*batch, channel]``.

    Source: van den Berg, Hasenclever, Tomczak & Welling 2018, "Sylvester normalizing flows for
    variational inference".

    Attributes:
      basis: What the directions are: `OrthogonalBasis`, `HouseholderBasis` or `IdentityBasis`.
    """

    basis: SylvesterBasis = HouseholderBasis()

    to_noise = False

    def step(self) -> _SylvesterStep:
        """Builds the step, from noise to data."""
        return _SylvesterStep(self.event_shape[0], self.basis)


@dataclasses.dataclass(frozen=True)
class _SylvesterStep:
    """One Sylvester map whose parameters are affine in the context, from noise to data.

    Attributes:
      channels: Number of entries of a vector.
      basis: What the directions are: `OrthogonalBasis`, `HouseholderBasis` or `IdentityBasis`.
    """

    channels: int
    basis: SylvesterBasis

    event_ndims = 1
    collections = ("params",)

    def init(self, key: Array, data: Array, context: Array | None) -> dict[str, Any]:
        """Draws directions and R~, and an R so small that the data stay nearly unchanged."""
        keys = jax.random.split(key, 4)
        columns = self.basis.columns(self.channels)
        shape = (columns, columns)
        base = {
            "outer": NOISE * jnp.triu(jax.random.normal(keys[0], shape)),
            "inner": jnp.triu(jax.random.normal(keys[1], shape)) / math.sqrt(columns),
            "bias": jnp.zeros(columns),
        }
        directions = self.basis.init(keys[2], self.channels)
        if directions is not None:
            base["directions"] = directions
        return {"params": affine_in_context(keys[3], base, context)}

    def __call__(self, variables: dict[str, Any], context: Array | None) -> bijectors.Bijector:
        """Builds the step from its variables."""
        parameters = dict(at_context(variables["params"], context))
        basis = self.basis(parameters.pop("directions", None))
        step = bijectors.Sylvester(basis, **parameters)
        return bijectors.Chain([bijectors.Reverse(), step]) if self.basis.reverses else step
