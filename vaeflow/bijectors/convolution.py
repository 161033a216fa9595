"""Invertible 1x1 convolutions."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors.base import Bijector, check_event_shape, sum_event
from vaeflow.bijectors.matrices import inverse, inverse_from_triangles, log_abs_determinant


class Invertible1x1Convolution(Bijector):
    """Mixes the channels at each position: y = x W.

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
        return _mix(x, self.weight), jnp.broadcast_to(log_det, batch)

    def _inverse(self, y):
        batch, positions = _batch_and_positions(self, y, self.weight)
        log_det = -positions * log_abs_determinant(self.weight)
        return _mix(y, inverse(self.weight)), jnp.broadcast_to(log_det, batch)


class Invertible1x1ConvolutionPLU(Bijector):
    """Mixes the channels at each position by a factored matrix: y = x W, W = P L (U + diag(s)).

    P is a fixed permutation matrix, L is unit lower triangular, U is strictly upper triangular and
    s has fixed signs, so log|det dy/dx| = P' sum_c log|s_c| needs no determinant (P' is the number
    of positions). Inverse solves two triangular systems.

    Shapes: x is ``[*batch, *positions, channel]``; the matrices are ``[channel, channel]``, the
    vectors ``[channel]``. Only the strict triangles of `lower` and `upper` are read.

    Source: Kingma & Dhariwal 2018, "Glow: Generative Flow with Invertible 1x1 Convolutions",
    section 3.2 (equations 10 and 11). `plu_factors` takes a matrix apart.
    """

    def __init__(
        self,
        permutation: Float[Array, "channel channel"],
        lower: Float[Array, "channel channel"],
        upper: Float[Array, "channel channel"],
        sign: Float[Array, " channel"],
        log_magnitude: Float[Array, " channel"],
        event_ndims: int = 3,
    ):
        """Builds the convolution.

        Args:
          permutation: Permutation matrix P; never differentiated.
          lower: Strict lower triangle of L.
          upper: Strict upper triangle of U.
          sign: Signs of s, each 1 or -1; never differentiated.
          log_magnitude: log|s|.
          event_ndims: Number of trailing axes that make an event: 3 for images, 1 for vectors.

        Raises:
          ValueError: If a matrix isn't square.
        """
        super().__init__(event_ndims_in=event_ndims, is_constant_jacobian=True)
        for name, matrix in (("permutation", permutation), ("lower", lower), ("upper", upper)):
            _check_square(name, matrix)
        self.permutation = permutation
        self.lower = lower
        self.upper = upper
        self.sign = sign
        self.log_magnitude = log_magnitude

    def _factors(self) -> tuple[Array, Array, Array]:
        identity = jnp.eye(self.lower.shape[-1], dtype=self.lower.dtype)
        diagonal = jax.lax.stop_gradient(self.sign) * jnp.exp(self.log_magnitude)
        return (
            jax.lax.stop_gradient(self.permutation),
            jnp.tril(self.lower, -1) + identity,
            jnp.triu(self.upper, 1) + jnp.diag(diagonal),
        )

    def _forward(self, x):
        batch, positions = _batch_and_positions(self, x, self.lower)
        permutation, lower, upper = self._factors()
        weight = permutation @ lower @ upper
        log_det = positions * sum_event(self.log_magnitude, 1)
        return _mix(x, weight), jnp.broadcast_to(log_det, batch)

    def _inverse(self, y):
        batch, positions = _batch_and_positions(self, y, self.lower)
        permutation, lower, upper = self._factors()
        weight = inverse_from_triangles(lower, upper) @ permutation.T
        log_det = -positions * sum_event(self.log_magnitude, 1)
        return _mix(y, weight), jnp.broadcast_to(log_det, batch)


def plu_factors(weight: Float[Array, "channel channel"]) -> dict[str, Array]:
    """Takes a matrix apart into the arguments of `Invertible1x1ConvolutionPLU`.

    Args:
      weight: Invertible matrix.

    Returns:
      The factors by name: `permutation`, `lower`, `upper`, `sign` and `log_magnitude`.
    """
    permutation, lower, upper = jax.scipy.linalg.lu(weight)
    diagonal = jnp.diag(upper)
    return {
        "permutation": permutation,
        "lower": jnp.tril(lower, -1),
        "upper": jnp.triu(upper, 1),
        "sign": jnp.sign(diagonal),
        "log_magnitude": jnp.log(jnp.abs(diagonal)),
    }


def _mix(x: Array, weight: Array) -> Array:
    # Accelerators would otherwise multiply in bfloat16, which is too coarse to invert.
    return jnp.matmul(x, weight, precision=jax.lax.Precision.HIGHEST)


def _batch_and_positions(
    bijector: Bijector, x: Array, weight: Array
) -> tuple[tuple[int, ...], int]:
    check_event_shape(bijector.name, x.shape, weight.shape[-1:])
    batch = x.shape[: x.ndim - bijector.event_ndims_in]
    return batch, math.prod(x.shape[len(batch) : -1])


def _check_square(name: str, matrix: Array) -> None:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name} must be a matrix [channel, channel], got shape {matrix.shape}")
