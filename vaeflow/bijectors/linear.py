"""Linear bijectors y = x W: invertible 1x1 convolutions, and products of LU or QR factors.

With inverses and log-determinants of small matrices that are fast and differentiable on CPUs.
Source: Kingma & Dhariwal 2018, "Glow: Generative Flow with Invertible 1x1 Convolutions".
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from vaeflow._util.arrays import check_event_shape, matmul, sum_event
from vaeflow.bijectors.base import Bijector
from vaeflow.bijectors.orthogonal import householder_product

LARGEST_SOLVED = 24
"""Triangular matrices with more rows are inverted by halves.

The LAPACK library runs larger solves on several threads, which wait for the threads of the compiled
program: 1 ms for 48 rows instead of 0.05 ms.
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
    return inverted, -matmul(matmul(inverted, tangents[0]), inverted)


def _inverse_from(factors: Array, permutation: Array) -> Array:
    """Inverts a matrix given its LU factors in one array and the order of its rows."""
    product = inverse_from_triangles(factors, factors)
    return jnp.zeros_like(product).at[:, permutation].set(product)


def inverse_from_triangles(
    lower: Float[Array, "channel channel"], upper: Float[Array, "channel channel"]
) -> Float[Array, "channel channel"]:
    """Inverts L U, reading the strict lower triangle of L (unit diagonal) and the upper of U."""
    return matmul(inverse_upper(upper), _inverse_lower(lower, unit_diagonal=True))


def inverse_upper(matrix: Float[Array, "channel channel"]) -> Float[Array, "channel channel"]:
    """Inverts the upper triangle of a matrix; entries below the diagonal aren't read."""
    return _inverse_lower(matrix.T, unit_diagonal=False).T


def _inverse_lower(matrix: Array, *, unit_diagonal: bool) -> Array:
    """Inverts the lower triangle of a matrix; entries above the diagonal aren't read.

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
    mixed = -matmul(last, matmul(matrix[half:, :half], first))
    return jnp.block([[first, jnp.zeros((half, size - half), matrix.dtype)], [mixed, last]])


class Invertible1x1Convolution(Bijector):
    """Invertible 1x1 convolution: y = x W at each position.

    log|det dy/dx| = P log|det W|, where P is the number of positions. Forward costs one product
    with W; inverse also inverts the channel x channel matrix, once a call.

    Shapes: x is ``[*batch, *positions, channel]``; `weight` is ``[channel, channel]``.

    Source: Kingma & Dhariwal 2018, "Glow: Generative Flow with Invertible 1x1 Convolutions",
    section 3.2 (equation 9).
    """

    def __init__(self, weight: Float[Array, "channel channel"], event_ndims: int = 3):
        """Builds the convolution.

        Args:
          weight: Invertible matrix, multiplied from the right.
          event_ndims: Number of trailing axes that make an event: 3 for images, 1 for vectors.

        Raises:
          ValueError: If `weight` isn't a square matrix.
        """
        super().__init__(event_ndims_in=event_ndims, is_constant_jacobian=True)
        self.weight = weight
        _check_square("weight", weight)

    def _forward(self, x):
        batch, positions = _batch_and_positions(self, x, self.weight)
        log_det = positions * log_abs_determinant(self.weight)
        return matmul(x, self.weight), jnp.broadcast_to(log_det, batch)

    def _inverse(self, y):
        batch, positions = _batch_and_positions(self, y, self.weight)
        log_det = -positions * log_abs_determinant(self.weight)
        return matmul(y, inverse(self.weight)), jnp.broadcast_to(log_det, batch)


class Invertible1x1ConvolutionPLU(Bijector):
    """Invertible 1x1 convolution with a factored matrix: y = x W, W = P L (U + diag(s)).

    P is a fixed permutation matrix, L is unit lower triangular, U is strictly upper triangular and
    s has fixed signs, so log|det dy/dx| = P' sum_c log|s_c| needs no determinant (P' is the number
    of positions). Inverse solves two triangular systems.

    Shapes: x is ``[*batch, *positions, channel]``; the matrices are ``[channel, channel]``, the
    vectors ``[channel]``. Only the strict triangles of `lower` and `upper` are read.

    Source: Kingma & Dhariwal 2018, "Glow: Generative Flow with Invertible 1x1 Convolutions",
    section 3.2 (equations 10 and 11). `plu_factors` factors a matrix.
    """

    def __init__(
        self,
        permutation: Int[Array, "channel channel"],
        lower: Float[Array, "channel channel"],
        upper: Float[Array, "channel channel"],
        sign: Int[Array, " channel"],
        log_magnitude: Float[Array, " channel"],
        event_ndims: int = 3,
    ):
        """Builds the convolution.

        Args:
          permutation: Permutation matrix P of integers, which no optimiser moves; floats, as in
            files from earlier versions, are rounded.
          lower: Strict lower triangle of L.
          upper: Strict upper triangle of U.
          sign: Signs of s, each 1 or -1, likewise.
          log_magnitude: log|s|.
          event_ndims: Number of trailing axes that make an event: 3 for images, 1 for vectors.

        Raises:
          ValueError: If a matrix isn't square.
        """
        super().__init__(event_ndims_in=event_ndims, is_constant_jacobian=True)
        for name, matrix in (("permutation", permutation), ("lower", lower), ("upper", upper)):
            _check_square(name, matrix)
        self.permutation = _integers(permutation)
        self.lower = lower
        self.upper = upper
        self.sign = _integers(sign)
        self.log_magnitude = log_magnitude

    def _factors(self) -> tuple[Array, Array, Array]:
        identity = jnp.eye(self.lower.shape[-1], dtype=self.lower.dtype)
        diagonal = self.sign * jnp.exp(self.log_magnitude)
        return (
            self.permutation.astype(self.lower.dtype),
            jnp.tril(self.lower, -1) + identity,
            jnp.triu(self.upper, 1) + jnp.diag(diagonal),
        )

    def _forward(self, x):
        batch, positions = _batch_and_positions(self, x, self.lower)
        permutation, lower, upper = self._factors()
        weight = permutation @ lower @ upper
        log_det = positions * sum_event(self.log_magnitude, 1)
        return matmul(x, weight), jnp.broadcast_to(log_det, batch)

    def _inverse(self, y):
        batch, positions = _batch_and_positions(self, y, self.lower)
        permutation, lower, upper = self._factors()
        weight = inverse_from_triangles(lower, upper) @ permutation.T
        log_det = -positions * sum_event(self.log_magnitude, 1)
        return matmul(y, weight), jnp.broadcast_to(log_det, batch)


def _integers(values: Array) -> Int[Array, "*shape"]:
    """Rounds numbers that should be -1, 0 or 1."""
    values = jnp.asarray(values)
    if jnp.issubdtype(values.dtype, jnp.integer):
        return values
    return jnp.round(values).astype(jnp.int8)


def plu_factors(weight: Float[Array, "channel channel"]) -> dict[str, Array]:
    """Factors a matrix into the arguments of `Invertible1x1ConvolutionPLU`.

    Args:
      weight: Invertible matrix.

    Returns:
      The factors by name: `permutation`, `lower`, `upper`, `sign` and `log_magnitude`.
    """
    permutation, lower, upper = jax.scipy.linalg.lu(weight)
    diagonal = jnp.diag(upper)
    return {
        "permutation": permutation.astype(jnp.int8),
        "lower": jnp.tril(lower, -1),
        "upper": jnp.triu(upper, 1),
        "sign": jnp.where(diagonal < 0, -1, 1).astype(jnp.int8),
        "log_magnitude": jnp.log(jnp.abs(diagonal)),
    }


def _batch_and_positions(
    bijector: Bijector, x: Array, weight: Array
) -> tuple[tuple[int, ...], int]:
    check_event_shape(bijector.name, x.shape, weight.shape[-1:])
    batch = x.shape[: x.ndim - bijector.event_ndims_in]
    return batch, math.prod(x.shape[len(batch) : -1])


def _check_square(name: str, matrix: Array) -> None:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name} must be a matrix [channel, channel], got shape {matrix.shape}")


class LULinear(Invertible1x1ConvolutionPLU):
    """Linear map with triangular factors: y = x W, W = P L (U + diag(s)).

    P is a fixed permutation matrix, L is unit lower triangular, U is strictly upper triangular and
    s has fixed signs, so log|det dy/dx| = sum of log|s|. An `Invertible1x1ConvolutionPLU` of
    vectors, whose permutation and signs may be left out. Forward costs one product with W; inverse
    also solves two triangular systems, once a call.

    Shapes: events are ``[dimension]``; the matrices are ``[dimension, dimension]``, the vectors
    ``[dimension]``. Only the strict triangles of `lower` and `upper` are read.

    Source: Kingma & Dhariwal 2018, "Glow: Generative Flow with Invertible 1x1 Convolutions",
    section 3.2. ``LULinear(**plu_factors(weight))`` takes any invertible matrix.
    """

    def __init__(
        self,
        lower: Float[Array, "dimension dimension"],
        upper: Float[Array, "dimension dimension"],
        log_magnitude: Float[Array, " dimension"],
        sign: Int[Array, " dimension"] | None = None,
        permutation: Int[Array, "dimension dimension"] | None = None,
    ):
        """Builds the map.

        Args:
          lower: Strict lower triangle of L.
          upper: Strict upper triangle of U.
          log_magnitude: log|s|.
          sign: Signs of s, each 1 or -1; None for all 1.
          permutation: Permutation matrix P; None for the identity.

        Raises:
          ValueError: If a matrix isn't square, or the shapes disagree.
        """
        lower, upper = jnp.asarray(lower), jnp.asarray(upper)
        log_magnitude = jnp.asarray(log_magnitude)
        _check_factors(lower=lower, upper=upper, log_magnitude=log_magnitude)
        dimension = lower.shape[0]
        if sign is None:
            sign = jnp.ones(dimension, jnp.int8)
        if permutation is None:
            permutation = jnp.eye(dimension, dtype=jnp.int8)
        _check_factors(permutation=permutation, sign=sign)
        super().__init__(permutation, lower, upper, sign, log_magnitude, event_ndims=1)


class QRLinear(Bijector):
    """Linear map with an orthogonal and a triangular factor: y = x W, W = Q R.

    Q is the product of the Householder reflections along the rows of `reflections`, without those
    shorter than 1e-6; R is upper triangular with a positive diagonal, so
    log|det dy/dx| = sum of log_diagonal. As many reflections as dimensions make every orthogonal
    matrix whose determinant has that sign. Forward costs one product with W, which costs one
    product with each factor; inverse also solves a triangular system, once a call.

    Shapes: events are ``[dimension]``; `reflections` is ``[reflection, dimension]``, `upper` is
    ``[dimension, dimension]``, of which only the strict upper triangle is read, and `log_diagonal`
    is ``[dimension]``.

    Source: Tomczak & Welling 2016, "Improving variational auto-encoders using Householder flow";
    with R, Hoogeboom, van den Berg & Welling 2019, "Emerging convolutions for generative
    normalizing flows", section 4.2.
    """

    def __init__(
        self,
        reflections: Float[Array, "reflection dimension"],
        upper: Float[Array, "dimension dimension"],
        log_diagonal: Float[Array, " dimension"],
    ):
        """Builds the map.

        Args:
          reflections: Normals of the planes of reflection, of any length.
          upper: Strict upper triangle of R.
          log_diagonal: Logarithm of the diagonal of R.

        Raises:
          ValueError: If `upper` isn't square, or the shapes disagree.
        """
        super().__init__(event_ndims_in=1, is_constant_jacobian=True)
        self.reflections = jnp.asarray(reflections)
        self.upper = jnp.asarray(upper)
        self.log_diagonal = jnp.asarray(log_diagonal)
        _check_factors(upper=self.upper, log_diagonal=self.log_diagonal)
        if self.reflections.ndim != 2 or self.reflections.shape[1] != self.upper.shape[0]:
            raise ValueError(
                f"reflections must have shape [reflection, {self.upper.shape[0]}], "
                f"got {self.reflections.shape}"
            )

    def _triangle(self) -> Array:
        return jnp.triu(self.upper, 1) + jnp.diag(jnp.exp(self.log_diagonal))

    def _forward(self, x):
        batch, _ = _batch_and_positions(self, x, self.upper)
        weight = matmul(householder_product(self.reflections), self._triangle())
        return matmul(x, weight), jnp.broadcast_to(sum_event(self.log_diagonal, 1), batch)

    def _inverse(self, y):
        batch, _ = _batch_and_positions(self, y, self.upper)
        weight = matmul(inverse_upper(self._triangle()), householder_product(self.reflections).T)
        return matmul(y, weight), jnp.broadcast_to(-sum_event(self.log_diagonal, 1), batch)


def _check_factors(**factors: Array) -> None:
    """Checks that the first factor is a square matrix, and that the others fit it."""
    (name, matrix), *others = factors.items()
    _check_square(name, matrix)
    for other, value in others:
        if value.shape not in (matrix.shape, matrix.shape[:1]):
            raise ValueError(
                f"{other} must fit {name} of shape {matrix.shape}, got shape {value.shape}"
            )
