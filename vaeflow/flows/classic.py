"""Planar, radial and Sylvester flows, whose parameters are affine in a context.

Made for amortized posteriors: samples with densities are cheap, from noise to data.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow import bijectors
from vaeflow.bijectors.orthogonal import householder_product, orthonormal_columns
from vaeflow.flows.amortized import SMALL_SCALE, amortized, amortized_features, init_amortized
from vaeflow.flows.base import VectorFlow


class PlanarFlow(VectorFlow, kw_only=True):
    """K planar maps, each of which stretches space along one direction.

    Noise to data is the cheap direction, at the cost of two inner products a step; the other solves
    a scalar equation a step. All parameters of all steps are affine in the context, so that as an
    amortized posterior every example has a flow of its own. It starts near the identity.

    Shapes: noise and data are ``[*batch, channel]``.

    Source: Rezende & Mohamed 2015, "Variational inference with normalizing flows", section 4.

    Attributes:
      negative_slope: None for tanh; the slope below zero, in [0, 1), for a leaky ReLU.
    """

    negative_slope: float | None = None

    to_noise = False

    @nn.nowrap
    def init_step(self, key, data, context) -> dict[str, Any]:
        """Creates the parameters of a step: a plane through one of the data, a small stretch."""
        (channels,) = self.event_shape
        keys = jax.random.split(key, 4)
        weight = jax.random.normal(keys[0], (channels,), jnp.float32)
        weight = weight / jnp.linalg.norm(weight)
        # Where w . u = log(e - 1), the constraint makes u_hat orthogonal to w; along w it is zero.
        scale = math.log(math.e - 1) * weight
        scale = scale + SMALL_SCALE * jax.random.normal(keys[1], (channels,), jnp.float32)
        # Biases differ so that the hyperplanes of different steps don't all meet at one point.
        bias = -jnp.sum(weight * jax.random.choice(keys[2], data))
        base = {"weight": weight, "scale": scale, "bias": bias}
        return {"params": init_amortized(keys[3], base, context)}

    @nn.nowrap
    def step_context_features(self, params, given) -> int:
        """Number of features of the context of a step, 0 for none."""
        return amortized_features(params)

    @nn.nowrap
    def step(self, variables, context) -> bijectors.Planar:
        """Builds a step from its variables, from noise to data."""
        params = amortized(variables["params"], context)
        return bijectors.Planar(**params, negative_slope=self.negative_slope)


class RadialFlow(VectorFlow, kw_only=True):
    """K radial maps, each of which contracts space towards a centre or expands it from there.

    Both directions are in closed form and cost the same. All parameters of all steps are affine in
    the context, so that as an amortized posterior every example has a flow of its own. It starts
    near the identity.

    Shapes: noise and data are ``[*batch, channel]``.

    Source: Rezende & Mohamed 2015, "Variational inference with normalizing flows", section 4.
    """

    to_noise = False

    @nn.nowrap
    def init_step(self, key, data, context) -> dict[str, Any]:
        """Creates the parameters of a step: a standard normal centre and a beta near zero."""
        del data
        keys = jax.random.split(key, 3)
        raw_alpha = jnp.float32(math.log(math.e - 1))  # alpha = 1
        base = {
            "center": jax.random.normal(keys[0], self.event_shape, jnp.float32),
            "raw_alpha": raw_alpha,
            "raw_beta": raw_alpha + SMALL_SCALE * jax.random.normal(keys[1], dtype=jnp.float32),
        }
        return {"params": init_amortized(keys[2], base, context)}

    @nn.nowrap
    def step_context_features(self, params, given) -> int:
        """Number of features of the context of a step, 0 for none."""
        return amortized_features(params)

    @nn.nowrap
    def step(self, variables, context) -> bijectors.Radial:
        """Builds a step from its variables, from noise to data."""
        return bijectors.Radial(**amortized(variables["params"], context))


class SylvesterBasis(Protocol):
    """A family of matrices Q with orthonormal columns; a frozen dataclass.

    Attributes:
      reverses: Whether the order of the dimensions is reversed after each step.
    """

    reverses: bool

    def columns(self, channels: int) -> int:
        """Number of columns M for vectors of so many channels."""

    def init(self, key: Array, channels: int) -> Array | None:
        """Samples the initial parameters, or returns None where Q has none."""

    def __call__(self, parameters: Array | None) -> Array | None:
        """Computes Q ``[*batch, channel, column]``, or None for the identity."""


@dataclasses.dataclass(frozen=True)
class OrthogonalBasis:
    """The matrix with orthonormal columns nearest to an unconstrained one, by iteration (O-SNF).

    Source: van den Berg et al. 2018, "Sylvester normalizing flows for variational inference",
    section 4.1.

    Attributes:
      size: Number of columns M; at most the number of channels is used.
    """

    size: int = 8

    reverses = False

    def columns(self, channels: int) -> int:
        """Number of columns."""
        return min(self.size, channels)

    def init(self, key: Array, channels: int) -> Float[Array, "channel column"]:
        """Samples an orthonormal basis."""
        return jax.random.orthogonal(key, channels, dtype=jnp.float32)[:, : self.columns(channels)]

    def __call__(self, parameters: Float[Array, "*batch channel column"]) -> Array:
        """Computes Q."""
        return orthonormal_columns(parameters)


@dataclasses.dataclass(frozen=True)
class HouseholderBasis:
    """A product of Householder reflections, square (H-SNF).

    Source: van den Berg et al. 2018, "Sylvester normalizing flows for variational inference",
    section 4.2.

    Attributes:
      num_reflections: Number of reflections.
    """

    num_reflections: int = 8

    reverses = False

    def columns(self, channels: int) -> int:
        """Number of columns."""
        return channels

    def init(self, key: Array, channels: int) -> Float[Array, "reflection channel"]:
        """Samples the normals of the reflections."""
        return jax.random.normal(key, (self.num_reflections, channels), jnp.float32)

    def __call__(self, parameters: Float[Array, "*batch reflection channel"]) -> Array:
        """Computes Q."""
        return householder_product(parameters)


@dataclasses.dataclass(frozen=True)
class IdentityBasis:
    """The identity, with the dimensions reversed after each step, so orders alternate (T-SNF).

    Source: van den Berg et al. 2018, "Sylvester normalizing flows for variational inference",
    section 4.3.
    """

    reverses = True

    def columns(self, channels: int) -> int:
        """Number of columns."""
        return channels

    def init(self, key: Array, channels: int) -> None:
        """Returns None: there are no parameters."""

    def __call__(self, parameters: None) -> None:
        """Returns None, which stands for the identity."""


class SylvesterFlow(VectorFlow, kw_only=True):
    """K Sylvester maps, each of which bends space along several orthogonal directions at once.

    Noise to data is the cheap direction, at the cost of a few matrix products a step; the other
    solves as many scalar equations a step as there are directions, one after another. All
    parameters of all steps are affine in the context, so that as an amortized posterior every
    example has a flow of its own. It starts near the identity, up to the reversals of
    `IdentityBasis`.

    Shapes: noise and data are ``[*batch, channel]``.

    Source: van den Berg, Hasenclever, Tomczak & Welling 2018, "Sylvester normalizing flows for
    variational inference".

    Attributes:
      basis: The family of the matrices Q whose columns are the directions: `OrthogonalBasis`,
        `HouseholderBasis` or `IdentityBasis`.
    """

    basis: SylvesterBasis = HouseholderBasis()

    to_noise = False

    @nn.nowrap
    def init_step(self, key, data, context) -> dict[str, Any]:
        """Creates the parameters of a step: random directions and R~, and a small R."""
        del data
        (channels,) = self.event_shape
        keys = jax.random.split(key, 4)
        columns = self.basis.columns(channels)
        shape = (columns, columns)
        base = {
            "outer": SMALL_SCALE * jnp.triu(jax.random.normal(keys[0], shape, jnp.float32)),
            "inner": jnp.triu(jax.random.normal(keys[1], shape, jnp.float32)) / math.sqrt(columns),
            "bias": jnp.zeros(columns, jnp.float32),
        }
        directions = self.basis.init(keys[2], channels)
        if directions is not None:
            base["directions"] = directions
        return {"params": init_amortized(keys[3], base, context)}

    @nn.nowrap
    def step_context_features(self, params, given) -> int:
        """Number of features of the context of a step, 0 for none."""
        return amortized_features(params)

    @nn.nowrap
    def step(self, variables, context) -> bijectors.Bijector:
        """Builds a step from its variables, from noise to data."""
        params = dict(amortized(variables["params"], context))
        basis = self.basis(params.pop("directions", None))
        step = bijectors.Sylvester(basis, **params)
        return bijectors.Chain([bijectors.Reverse(), step]) if self.basis.reverses else step
