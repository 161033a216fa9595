"""Flows for amortised posteriors: planar, radial and Sylvester."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow import bijectors
from vaeflow.bijectors.orthogonal import householder_product, orthonormal_columns
from vaeflow.flows.base import VectorFlow

Parameters = dict[str, Any]

NOISE = 0.01
"""Standard deviation of the small numbers with which a flow starts near the identity."""


def affine_in_context(
    key: Array, base: dict[str, Array], context: Float[Array, "*batch feature"] | None
) -> Parameters:
    """Makes what is learned so that each parameter is base + context . kernel.

    Kernels start small, not at zero, so that gradients reach the network behind the context.

    Args:
      key: Random key.
      base: First values of the parameters, by name.
      context: Any context of the shape to come, or None.

    Returns:
      ``{"base": ...}``, and where there is a context ``"kernel"``, with arrays
      ``[feature, *parameter]`` by the same names.
    """
    if context is None:
        return {"base": base}
    features = context.shape[-1]
    scale = NOISE / math.sqrt(max(features, 1))
    keys = jax.random.split(key, len(base))
    kernel = {
        name: scale * jax.random.normal(part, (features, *value.shape))
        for part, (name, value) in zip(keys, sorted(base.items()), strict=True)
    }
    return {"base": base, "kernel": kernel}


def at_context(
    parameters: Parameters, context: Float[Array, "*batch feature"] | None
) -> dict[str, Array]:
    """Computes the parameters, ``[*batch, *parameter]`` each, at a context.

    Args:
      parameters: From `affine_in_context`.
      context: Vectors, or None where the parameters were made without.

    Raises:
      ValueError: If the context hasn't the features that the parameters were made for.
    """
    base, kernel = parameters["base"], parameters.get("kernel")
    expected = None if kernel is None else next(iter(kernel.values())).shape[0]
    got = None if context is None else context.shape[-1]
    if got != expected:
        raise ValueError(
            f"context must have the features it had in init, {expected}, got {got}"
            + ("" if context is None else f" in shape {context.shape}")
        )
    if context is None:
        return base
    context = context.astype(jnp.promote_types(context.dtype, jnp.float32))
    return {name: value + jnp.tensordot(context, kernel[name], 1) for name, value in base.items()}


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


class SylvesterBasis(Protocol):
    """Makes a matrix Q with orthonormal columns from free parameters: a frozen dataclass.

    Attributes:
      reverses: Whether the order of the entries is reversed after each step.
    """

    reverses: bool

    def columns(self, channels: int) -> int:
        """Number of columns M for vectors of so many entries."""

    def init(self, key: Array, channels: int) -> Array | None:
        """Draws the first parameters, or None where Q has none."""

    def __call__(self, parameters: Array | None) -> Array | None:
        """Computes Q ``[*batch, channel, column]``, or None for the identity."""


@dataclasses.dataclass(frozen=True)
class OrthogonalBasis:
    """The matrix with orthonormal columns nearest to a free one, by iteration (O-SNF).

    Source: van den Berg et al. 2018, "Sylvester normalizing flows for variational inference",
    section 4.1.

    Attributes:
      size: Number of columns M; where an event has fewer entries, as many as those.
    """

    size: int = 8

    reverses = False

    def columns(self, channels: int) -> int:
        """Number of columns."""
        return min(self.size, channels)

    def init(self, key: Array, channels: int) -> Float[Array, "channel column"]:
        """Draws an orthonormal basis."""
        return jax.random.orthogonal(key, channels)[:, : self.columns(channels)]

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
        """Draws the normals of the reflections."""
        return jax.random.normal(key, (self.num_reflections, channels))

    def __call__(self, parameters: Float[Array, "*batch reflection channel"]) -> Array:
        """Computes Q."""
        return householder_product(parameters)


@dataclasses.dataclass(frozen=True)
class IdentityBasis:
    """The identity, with the entries reversed after each step, so orders alternate (T-SNF).

    Source: van den Berg et al. 2018, "Sylvester normalizing flows for variational inference",
    section 4.3.
    """

    reverses = True

    def columns(self, channels: int) -> int:
        """Number of columns."""
        return channels

    def init(self, key: Array, channels: int) -> None:
        """Draws nothing."""

    def __call__(self, parameters: None) -> None:
        """Returns None, which stands for the identity."""


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
