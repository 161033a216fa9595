"""Linear maps of vectors by matrices in factors."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors.base import Bijector, sum_event
from vaeflow.bijectors.convolution import (
    Invertible1x1ConvolutionPLU,
    _batch_and_positions,
    _check_square,
    _mix,
)
from vaeflow.bijectors.matrices import inverse_upper
from vaeflow.bijectors.orthogonal import householder_product


class LULinear(Invertible1x1ConvolutionPLU):
    """Multiplies vectors by a matrix in triangular factors: y = x W, W = P L (U + diag(s)).

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
        sign: Float[Array, " dimension"] | None = None,
        permutation: Float[Array, "dimension dimension"] | None = None,
    ):
        """Builds the map.

        Args:
          lower: Strict lower triangle of L.
          upper: Strict upper triangle of U.
          log_magnitude: log|s|.
          sign: Signs of s, each 1 or -1, never differentiated; None for 1 throughout.
          permutation: Permutation matrix P, never differentiated; None for the identity.

        Raises:
          ValueError: If a matrix isn't square, or the shapes disagree.
        """
        lower, upper = jnp.asarray(lower), jnp.asarray(upper)
        log_magnitude = jnp.asarray(log_magnitude)
        _check_factors(lower=lower, upper=upper, log_magnitude=log_magnitude)
        dimension = lower.shape[0]
        if sign is None:
            sign = jnp.ones(dimension, lower.dtype)
        if permutation is None:
            permutation = jnp.eye(dimension, dtype=lower.dtype)
        _check_factors(permutation=permutation, sign=sign)
        super().__init__(permutation, lower, upper, sign, log_magnitude, event_ndims=1)


class QRLinear(Bijector):
    """Multiplies vectors by a matrix in orthogonal and triangular factors: y = x W, W = Q R.

    Q is the product of the Householder reflections along the rows of `reflections`, those shorter
    than 1e-6 left out; R is upper triangular with a positive diagonal, so
    log|det dy/dx| = sum of log_diagonal. As many reflections as entries make every orthogonal
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
        weight = _mix(householder_product(self.reflections), self._triangle())
        return _mix(x, weight), jnp.broadcast_to(sum_event(self.log_diagonal, 1), batch)

    def _inverse(self, y):
        batch, _ = _batch_and_positions(self, y, self.upper)
        weight = _mix(inverse_upper(self._triangle()), householder_product(self.reflections).T)
        return _mix(y, weight), jnp.broadcast_to(-sum_event(self.log_diagonal, 1), batch)


def _check_factors(**factors: Array) -> None:
    """Refuses factors unless the first is a square matrix, and the others are as long."""
    (name, matrix), *others = factors.items()
    _check_square(name, matrix)
    for other, value in others:
        if value.shape not in (matrix.shape, matrix.shape[:1]):
            raise ValueError(
                f"{other} must fit {name} of shape {matrix.shape}, got shape {value.shape}"
            )
