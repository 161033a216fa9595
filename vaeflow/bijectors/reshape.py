"""Rearrangements of dimensions: permutation, reversal, reshaping and squeezing.

All preserve volume: log|det dy/dx| = 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array

from vaeflow._util.arrays import check_event_shape
from vaeflow.bijectors.base import Bijector


class _VolumePreserving(Bijector):
    """A bijector whose log-determinant is zero."""

    def _zeros(self, x: Array, event_ndims: int) -> Array:
        return jnp.zeros(x.shape[: x.ndim - event_ndims], jnp.float32)

    def _forward(self, x):
        return self._move(x), self._zeros(x, self.event_ndims_in)

    def _inverse(self, y):
        return self._move_back(y), self._zeros(y, self.event_ndims_out)


class Permute(_VolumePreserving):
    """Permutation of the last axis: y[..., i] = x[..., permutation[i]].

    The log-determinant is zero. Shapes: x is ``[*batch, *positions, channel]``.
    """

    static_fields = ("permutation",)

    def __init__(self, permutation: Sequence[int], event_ndims: int = 1):
        """Builds the permutation.

        Args:
          permutation: Each of 0, ..., channel - 1 once.
          event_ndims: Number of trailing axes that make an event.

        Raises:
          ValueError: If `permutation` isn't one.
        """
        super().__init__(event_ndims_in=event_ndims, is_constant_jacobian=True)
        self.permutation = tuple(int(index) for index in permutation)
        if sorted(self.permutation) != list(range(len(self.permutation))):
            raise ValueError(
                f"permutation must hold each of 0, ..., {len(self.permutation) - 1} once, "
                f"got {self.permutation}"
            )

    def _move(self, x):
        check_event_shape(self.name, x.shape, (len(self.permutation),))
        return x[..., jnp.array(self.permutation)]

    def _move_back(self, y):
        check_event_shape(self.name, y.shape, (len(self.permutation),))
        positions = sorted(range(len(self.permutation)), key=self.permutation.__getitem__)
        return y[..., jnp.array(positions)]


class Reverse(_VolumePreserving):
    """Reversal of the last axis: its own inverse, with log-determinant zero.

    Shapes: x is ``[*batch, *positions, channel]``.
    """

    def __init__(self, event_ndims: int = 1):
        """Builds the reversal.

        Args:
          event_ndims: Number of trailing axes that make an event.
        """
        super().__init__(event_ndims_in=event_ndims, is_constant_jacobian=True)

    def _move(self, x):
        return jnp.flip(x, axis=-1)

    _move_back = _move


class Reshape(_VolumePreserving):
    """Reshaping of events in row-major order; the log-determinant is zero.

    Shapes: ``[*batch, *shape_in]`` to ``[*batch, *shape_out]``.
    """

    static_fields = ("shape_in", "shape_out")

    def __init__(self, shape_in: Sequence[int], shape_out: Sequence[int]):
        """Builds the reshaping.

        Args:
          shape_in: Shape of an event before.
          shape_out: Shape of an event after.

        Raises:
          ValueError: If the two differ in size.
        """
        if math.prod(shape_in) != math.prod(shape_out):
            raise ValueError(
                f"shape_in {tuple(shape_in)} and shape_out {tuple(shape_out)} differ in size"
            )
        super().__init__(len(shape_in), len(shape_out), is_constant_jacobian=True)
        self.shape_in = tuple(shape_in)
        self.shape_out = tuple(shape_out)

    def _move(self, x):
        check_event_shape(self.name, x.shape, self.shape_in)
        return x.reshape(x.shape[: x.ndim - self.event_ndims_in] + self.shape_out)

    def _move_back(self, y):
        check_event_shape(self.name, y.shape, self.shape_out)
        return y.reshape(y.shape[: y.ndim - self.event_ndims_out] + self.shape_in)


class Squeeze(_VolumePreserving):
    """Space-to-depth: each block of factor x factor pixels becomes one position.

    The log-determinant is zero. The pixels of a block become groups of channels in row-major
    order, so with ``factor=2`` the first half of the channels holds the upper row of each block.
    With ``checkerboard=True`` (for ``factor=2``) the diagonal of each block comes first, then the
    antidiagonal: splitting the channels in halves is then the checkerboard mask of Dinh et al.

    Shapes: ``[*batch, height, width, channel]`` to
    ``[*batch, height / factor, width / factor, factor^2 channel]``.

    Source: Dinh, Sohl-Dickstein & Bengio 2017, "Density estimation using Real NVP", section 3.6.
    """

    static_fields = ("factor", "checkerboard")

    def __init__(self, factor: int = 2, checkerboard: bool = False):
        """Builds the squeeze.

        Args:
          factor: Height and width of a block.
          checkerboard: Whether the diagonal of each block comes first.

        Raises:
          ValueError: If `checkerboard` is True and the factor isn't 2.
        """
        super().__init__(event_ndims_in=3, is_constant_jacobian=True)
        if checkerboard and factor != 2:
            raise ValueError(f"checkerboard needs factor 2, got {factor}")
        self.factor = factor
        self.checkerboard = checkerboard

    def _move(self, x):
        *batch, height, width, channels = x.shape
        factor = self.factor
        if height % factor or width % factor:
            raise ValueError(
                f"Squeeze: height and width must be divisible by {factor}, "
                f"got an array of shape {x.shape}"
            )
        x = x.reshape(*batch, height // factor, factor, width // factor, factor, channels)
        x = jnp.moveaxis(x, -4, -3)
        x = x.reshape(*batch, height // factor, width // factor, factor**2, channels)
        if self.checkerboard:
            x = x[..., jnp.array((0, 3, 1, 2)), :]
        return x.reshape(*batch, height // factor, width // factor, factor**2 * channels)

    def _move_back(self, y):
        *batch, height, width, channels = y.shape
        factor = self.factor
        if channels % factor**2:
            raise ValueError(
                f"Squeeze: the number of channels must be divisible by {factor**2}, "
                f"got an array of shape {y.shape}"
            )
        y = y.reshape(*batch, height, width, factor**2, channels // factor**2)
        if self.checkerboard:
            y = y[..., jnp.array((0, 2, 3, 1)), :]
        y = y.reshape(*batch, height, width, factor, factor, channels // factor**2)
        y = jnp.moveaxis(y, -3, -4)
        return y.reshape(*batch, height * factor, width * factor, channels // factor**2)
