"""Orthogonal matrices and the map by one: Householder products, and orthonormal columns.

Both constructions take unconstrained parameters and keep exact, finite derivatives.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vaeflow._util.arrays import matmul
from vaeflow.bijectors.base import Bijector, prepare_vectors

SMALLEST_SQUARE = 1e-12
"""Squared length of a vector up to which it counts as zero, and reflects nothing."""

LARGEST_ITERATIONS = 100
"""Largest number of steps of the iteration towards orthonormal columns."""


def householder_product(
    vectors: Float[Array, "*batch reflection dimension"],
) -> Float[Array, "*batch dimension dimension"]:
    """Computes Q = H_1 ... H_K with H_k = I - 2 v_k v_k' / ||v_k||^2, an orthogonal matrix.

    As Q = I - V' T V with the unit vectors as the rows of V and T upper triangular (the compact WY
    form): one small triangular solve and two products instead of K successive reflections. Where
    ||v_k|| is at most 1e-6, H_k = I, and the gradient to v_k is zero.

    Source: Schreiber & Van Loan 1989, "A storage-efficient WY representation for products of
    Householder transformations"; for T, Puglisi 1992, "Modification of the Householder method
    based on the compact WY representation".

    Args:
      vectors: The vectors v_k.
    """
    square = jnp.sum(vectors**2, axis=-1)
    is_zero = square <= SMALLEST_SQUARE
    # The branch that isn't selected must still have a finite gradient.
    inverse_length = jnp.where(is_zero, 0.0, lax.rsqrt(jnp.where(is_zero, 1.0, square)))
    unit = inverse_length[..., None] * vectors
    # T^-1 holds the products of different vectors above the diagonal, and half of v_k . v_k on it.
    products = jnp.triu(matmul(unit, unit.mT), 1)
    inverse_t = products + jnp.eye(unit.shape[-2], dtype=unit.dtype) / 2
    mixed = lax.linalg.triangular_solve(inverse_t, unit, left_side=True, lower=False)
    return jnp.eye(unit.shape[-1], dtype=unit.dtype) - matmul(unit.mT, mixed)


@jax.custom_jvp
def orthonormal_columns(
    matrix: Float[Array, "*batch row column"],
) -> Float[Array, "*batch row column"]:
    """Computes the matrix with orthonormal columns that is nearest to A: Q = A (A' A)^(-1/2).

    By the iteration Q <- Q + Q (I - Q' Q) / 2 from A / ||A||_F, until ||Q' Q - I||_F is within ten
    rounding errors times the number of columns. A batch iterates until all its matrices are done.
    Where 100 steps don't suffice, because the columns are linearly dependent, the result is NaN.
    Derivatives are those of the limit, whatever the number of steps.

    Source: Björck & Bowie 1971, "An iterative algorithm for computing the best estimate of an
    orthogonal matrix"; its use for flows, van den Berg, Hasenclever, Tomczak & Welling 2018,
    "Sylvester normalizing flows for variational inference", section 4.1.

    Args:
      matrix: A, with at least as many rows as columns.

    Raises:
      ValueError: If it has more columns than rows.
    """
    rows, columns = matrix.shape[-2:]
    if columns > rows:
        raise ValueError(f"matrix must have at most as many columns as rows, got {matrix.shape}")
    identity = jnp.eye(columns, dtype=matrix.dtype)
    tolerance = 10 * columns * jnp.finfo(matrix.dtype).eps

    def error(q):
        return jnp.linalg.norm(identity - matmul(q.mT, q), axis=(-2, -1))

    def not_done(state):
        # NaN compares false: nothing waits for it.
        return jnp.any(error(state[0]) > tolerance) & (state[1] < LARGEST_ITERATIONS)

    def improve(state):
        q, count = state
        return q + matmul(q, identity - matmul(q.mT, q)) / 2, count + 1

    start = matrix / jnp.linalg.norm(matrix, axis=(-2, -1), keepdims=True)
    q, _ = lax.while_loop(not_done, improve, (start, 0))
    return jnp.where((error(q) <= tolerance)[..., None, None], q, jnp.nan)


@orthonormal_columns.defjvp
def _orthonormal_columns_jvp(primals, tangents):
    # A = Q S with S symmetric, so dA = dQ S + Q dS, and W = Q' dQ, which is antisymmetric, solves
    # W S + S W = Q' dA - dA' Q, elementwise in the basis of the eigenvectors of S.
    (matrix,), (change,) = primals, tangents
    q = orthonormal_columns(matrix)
    values, vectors = jnp.linalg.eigh(matmul(q.mT, matrix))
    along = matmul(q.mT, change)
    w = matmul(vectors.mT, matmul(along - along.mT, vectors))
    w = w / (values[..., :, None] + values[..., None, :])
    w = matmul(vectors, matmul(w, vectors.mT))
    outside = matmul(change - matmul(q, along), vectors) / values[..., None, :]
    return q, matmul(q, w) + matmul(outside, vectors.mT)


class Householder(Bijector):
    """Product of Householder reflections: y = Q x, with log|det dy/dx| = 0.

    Q is the product of the Householder reflections along the rows of `reflections`, without those
    shorter than 1e-6. As many reflections as dimensions make every orthogonal matrix whose
    determinant has that sign. Both directions cost the same.

    Shapes: events are ``[dimension]``; `reflections` is ``[*parameters, reflection, dimension]``,
    whose batch axes broadcast against those of the input.

    Source: Tomczak & Welling 2016, "Improving variational auto-encoders using Householder flow".
    """

    def __init__(self, reflections: Float[Array, "*parameters reflection dimension"]):
        """Builds the map.

        Args:
          reflections: Normals of the planes of reflection, of any length.

        Raises:
          ValueError: If `reflections` has fewer than two axes, or there are none.
        """
        super().__init__(event_ndims_in=1, is_constant_jacobian=True)
        self.reflections = jnp.asarray(reflections)
        if self.reflections.ndim < 2 or 0 in self.reflections.shape:
            raise ValueError(
                "reflections must have shape [*batch, reflection, dimension] without zeros, got "
                f"{self.reflections.shape}"
            )

    def _rotate(self, x: Array, inverse: bool) -> tuple[Array, Array]:
        batch, dimension = self.reflections.shape[:-2], self.reflections.shape[-1]
        x = prepare_vectors(self.name, x, dimension, batch)
        matrix = householder_product(self.reflections)
        matrix = matrix.mT if inverse else matrix
        y = jnp.matmul(matrix, x[..., None], precision=lax.Precision.HIGHEST)[..., 0]
        return y, jnp.zeros(x.shape[:-1], x.dtype)

    def _forward(self, x):
        return self._rotate(x, inverse=False)

    def _inverse(self, y):
        return self._rotate(y, inverse=True)
