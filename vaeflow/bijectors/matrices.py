"""Inverses and determinants of the small matrices that mix channels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

LARGEST_SOLVED = 24
"""Triangles with more rows are inverted by halves.

Larger solves are handed to several threads by the library behind them, which wait for those that
the compiled program keeps busy: 1 ms for 48 rows in place of 0.05.
"""


@jax.custom_jvp
def log_abs_determinant(matrix: Float[Array, "channel channel"]) -> Float[Array, ""]:
    """Computes log|det A|, whose gradient is the transposed inverse."""
    return jnp.linalg.slogdet(matrix)[1]


@log_abs_determinant.defjvp
def _log_abs_determinant_jvp(primals, tangents):
    factors, _, permutation = lax.linalg.lu(primals[0])
    log_det = jnp.sum(jnp.log(jnp.abs(jnp.diagonal(factors))))
    return log_det, jnp.sum(_inverse_from(factors, permutation).T * tangents[0])


@jax.custom_jvp
def inverse(matrix: Float[Array, "channel channel"]) -> Float[Array, "channel channel"]:
    """Computes the inverse of an invertible matrix, with pivoting."""
    factors, _, permutation = lax.linalg.lu(matrix)
    return _inverse_from(factors, permutation)


@inverse.defjvp
def _inverse_jvp(primals, tangents):
    inverted = inverse(primals[0])
    return inverted, -_product(_product(inverted, tangents[0]), inverted)


def _inverse_from(factors: Array, permutation: Array) -> Array:
    """Inverts a matrix given its LU factors in one array and the order of its rows."""
    product = inverse_from_triangles(factors, factors)
    return jnp.zeros_like(product).at[:, permutation].set(product)


def inverse_from_triangles(
    lower: Float[Array, "channel channel"], upper: Float[Array, "channel channel"]
) -> Float[Array, "channel channel"]:
    """Inverts L U, reading the strict lower triangle of L (unit diagonal) and the upper of U."""
    return _product(inverse_upper(upper), _inverse_lower(lower, unit_diagonal=True))


def inverse_upper(matrix: Float[Array, "channel channel"]) -> Float[Array, "channel channel"]:
    """Inverts the upper triangle of a matrix; what is below the diagonal isn't read."""
    return _inverse_lower(matrix.T, unit_diagonal=False).T


def _inverse_lower(matrix: Array, *, unit_diagonal: bool) -> Array:
    """Inverts the lower triangle of a matrix; what is above the diagonal isn't read.

    By halves: [[A, 0], [B, C]] has the inverse [[A', 0], [-C' B A', C']].
    """
    size = matrix.shape[-1]
    if size <= LARGEST_SOLVED:
        identity = jnp.eye(size, dtype=matrix.dtype)
        return lax.linalg.triangular_solve(
            matrix, identity, left_side=True, lower=True, unit_diagonal=unit_diagonal
        )
    half = size // 2
    first = _inverse_lower(matrix[:half, :half], unit_diagonal=unit_diagonal)
    last = _inverse_lower(matrix[half:, half:], unit_diagonal=unit_diagonal)
    mixed = -_product(last, _product(matrix[half:, :half], first))
    return jnp.block([[first, jnp.zeros((half, size - half), matrix.dtype)], [mixed, last]])


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
