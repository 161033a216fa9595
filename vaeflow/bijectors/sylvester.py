"""Sylvester bijectors of vectors: planar maps of several directions at once.

Source: van den Berg, Hasenclever, Tomczak & Welling 2018, "Sylvester normalizing flows for
variational inference".
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors.base import Bijector, prepare_vectors
from vaeflow.bijectors.numerical import solve_monotone

LARGEST_DIAGONAL = 0.999
"""Bound on the diagonals of both triangles, which keeps each factor of the determinant above
0.0019."""


class Sylvester(Bijector):
    """Sylvester map: y = x + Q R tanh(R~ Q' x + b).

    Q has orthonormal columns, at most as many as x has dimensions, and R (`outer`) and R~ (`inner`)
    are upper triangular, with diagonals 0.999 tanh of those given. So
    log|det dy/dx| = sum_i log(1 + tanh'(R~ Q' x + b)_i r_ii r~_ii), and as r_ii r~_ii > -1 the map
    is invertible. The bound by tanh, unlike the softplus of `Planar`, divides by nothing that may
    be zero, but one map stretches a direction at most twofold.

    Forward is the cheap direction. The inverse solves a scalar monotone equation for each dimension
    of Q' x, from the last to the first, by `solve_monotone`, with NaN where a search fails.

    Shapes: events are ``[dimension]``; `basis` is ``[*parameters, dimension, column]``, `outer` and
    `inner` are ``[*parameters, column, column]`` and `bias` is ``[*parameters, column]``, whose
    batch axes broadcast against those of the input.

    Source: van den Berg, Hasenclever, Tomczak & Welling 2018, "Sylvester normalizing flows for
    variational inference", section 3; the bound by tanh, their published code.
    """

    def __init__(
        self,
        basis: Float[Array, "*parameters dimension column"] | None,
        outer: Float[Array, "*parameters column column"],
        inner: Float[Array, "*parameters column column"],
        bias: Float[Array, "*parameters column"],
    ):
        """Builds the map.

        Args:
          basis: Q, from `orthonormal_columns` or `householder_product` of
            `vaeflow.bijectors.orthogonal`; None for the identity.
          outer: Upper triangle of R, its diagonal before tanh; entries below it aren't read.
          inner: Upper triangle of R~, likewise.
          bias: The offset b.

        Raises:
          ValueError: If the shapes of the parameters disagree, or the basis has more columns than
            rows.
        """
        super().__init__(event_ndims_in=1)
        outer, inner, bias = jnp.asarray(outer), jnp.asarray(inner), jnp.asarray(bias)
        square = (*bias.shape, *bias.shape[-1:])
        if bias.ndim < 1 or not outer.shape == inner.shape == square:
            raise ValueError(
                "outer, inner and bias must have shapes [*batch, column, column], "
                "[*batch, column, column] and [*batch, column], "
                f"got {outer.shape}, {inner.shape} and {bias.shape}"
            )
        if basis is not None:
            basis = jnp.asarray(basis)
            batch, columns = bias.shape[:-1], bias.shape[-1]
            if (
                basis.ndim < 2
                or (*basis.shape[:-2], basis.shape[-1]) != bias.shape
                or basis.shape[-2] < columns
            ):
                raise ValueError(
                    f"basis must have shape [*batch, dimension, column] with batch {batch} and "
                    f"{columns} columns, and at least as many rows, got {basis.shape}"
                )
        self.basis = basis
        self.outer = outer
        self.inner = inner
        self.bias = bias

    def _prepare(self, x: Array) -> Array:
        dimension = self.bias.shape[-1] if self.basis is None else self.basis.shape[-2]
        return prepare_vectors(self.name, x, dimension, self.bias.shape[:-1])

    def _into_basis(self, x: Array) -> Array:
        return x if self.basis is None else _product(self.basis.mT, x)

    def _shift(self, h: Array) -> Array:
        """Computes Q R h."""
        shift = _product(_bounded(self.outer), h)
        return shift if self.basis is None else _product(self.basis, shift)

    def _log_det(self, h: Array) -> Array:
        # A sum of positive terms, which don't cancel.
        stretch = 1 + _diagonal(self.outer) * _diagonal(self.inner)
        return jnp.sum(jnp.log(h**2 + (1 - h**2) * stretch), axis=-1)

    def _forward(self, x):
        x = self._prepare(x)
        h = jnp.tanh(_product(_bounded(self.inner), self._into_basis(x)) + self.bias)
        return x + self._shift(h), self._log_det(h)

    def _inverse(self, y):
        y = self._prepare(y)
        h = self._solve(self._into_basis(y))
        return y - self._shift(h), -self._log_det(h)

    def _solve(self, target: Array) -> Array:
        """Solves v + R h = target with h = tanh(R~ v + b), from the last dimension to the first."""

        def solve_row(state, row):
            v, h = state
            outer, inner, bias, outer_diagonal, inner_diagonal, value, mask = row
            # Dimensions that aren't solved yet are zero.
            offset = bias + jnp.sum(inner * v, axis=-1)
            rest = value - jnp.sum(outer * h, axis=-1)
            offset = jnp.broadcast_to(offset, rest.shape)
            parameters = (outer_diagonal, inner_diagonal, offset)
            solved = solve_monotone(_scalar_map, parameters, rest)
            activation = jnp.tanh(inner_diagonal * solved + offset)
            v = jnp.where(mask, solved[..., None], v)
            return (v, jnp.where(mask, activation[..., None], h)), None

        columns = self.bias.shape[-1]
        zeros = jnp.zeros_like(target)
        rows = (
            jnp.moveaxis(jnp.triu(self.outer, 1), -2, 0),
            jnp.moveaxis(jnp.triu(self.inner, 1), -2, 0),
            jnp.moveaxis(self.bias, -1, 0),
            jnp.moveaxis(_diagonal(self.outer), -1, 0),
            jnp.moveaxis(_diagonal(self.inner), -1, 0),
            jnp.moveaxis(target, -1, 0),
            jnp.eye(columns, dtype=bool),
        )
        (_, h), _ = jax.lax.scan(solve_row, (zeros, zeros), rows, reverse=True)
        return h


def _scalar_map(parameters: tuple[Array, Array, Array], v: Array) -> Array:
    outer, inner, offset = parameters
    return v + outer * jnp.tanh(inner * v + offset)


def _diagonal(matrix: Array) -> Array:
    return LARGEST_DIAGONAL * jnp.tanh(jnp.diagonal(matrix, axis1=-2, axis2=-1))


def _bounded(matrix: Array) -> Array:
    identity = jnp.eye(matrix.shape[-1], dtype=matrix.dtype)
    return jnp.triu(matrix, 1) + identity * _diagonal(matrix)[..., None]


def _product(matrix: Array, vectors: Array) -> Array:
    # Accelerators would otherwise multiply in bfloat16, which is too coarse to invert.
    return jnp.einsum("...ij,...j->...i", matrix, vectors, precision=jax.lax.Precision.HIGHEST)
