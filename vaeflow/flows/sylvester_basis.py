"""How the orthonormal directions of a Sylvester flow come about."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import jax
from jaxtyping import Array, Float

from vaeflow.bijectors import householder_product, orthonormal_columns


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
      reflections: Number of reflections.
    """

    reflections: int = 8

    reverses = False

    def columns(self, channels: int) -> int:
        """Number of columns."""
        return channels

    def init(self, key: Array, channels: int) -> Float[Array, "reflection channel"]:
        """Draws the normals of the reflections."""
        return jax.random.normal(key, (self.reflections, channels))

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
