"""Base class of bijectors: a distrax bijector that is a pytree, with checked shapes and dtypes.

A subclass computes ``[*batch, *event]`` to ``[*batch, *event]`` with log-determinants ``[*batch]``,
which are float32 or wider whatever the type of the input.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import distrax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.shapes import broadcasts_to, check_event_shape

DISTRAX_FIELDS = (
    "_event_ndims_in",
    "_event_ndims_out",
    "_is_constant_jacobian",
    "_is_constant_log_det",
)
"""Attributes that `distrax.Bijector` sets itself; all are static."""


class Bijector(distrax.Bijector):
    """A distrax bijector that checks shapes and keeps log-determinants in float32.

    A subclass implements `_forward` and `_inverse`, each from an array of shape
    ``[*batch, *event]`` to the transformed array and the log absolute determinant of the Jacobian,
    of shape ``[*batch]``, for any number of leading batch axes. By the convention of this package
    forward maps noise to data. Its constructor calls ``super().__init__(event_ndims_in=...)``, the
    number of trailing axes that make an event.

    A bijector is a pytree. Every attribute is a subtree of arrays, except those named in
    `static_fields`, which must be hashable and are compared when a compiled function is looked up.

    Attributes:
      static_fields: Names of the attributes that aren't arrays.
    """

    static_fields: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def _forward(self, x: Array) -> tuple[Array, Array]:
        """Computes y = f(x) and log|det df/dx|."""

    @abc.abstractmethod
    def _inverse(self, y: Array) -> tuple[Array, Array]:
        """Computes x = f^-1(y) and log|det df^-1/dy|."""

    def forward_and_log_det(
        self, x: Float[Array, "*batch_and_event"]
    ) -> tuple[Float[Array, "*batch_and_event"], Float[Array, "*batch"]]:
        """Computes y = f(x) and log|det df/dx|.

        Args:
          x: Array of shape ``[*batch, *event]``.

        Returns:
          The image of x, and its log-determinant in nats, at least float32, of shape ``[*batch]``.

        Raises:
          ValueError: If x has fewer axes than an event, or an event of the wrong shape.
        """
        self._check_forward_input_shape(x)
        y, log_det = self._forward(x)
        return y, self._checked(log_det, x, self.event_ndims_in)

    def inverse_and_log_det(
        self, y: Float[Array, "*batch_and_event"]
    ) -> tuple[Float[Array, "*batch_and_event"], Float[Array, "*batch"]]:
        """Computes x = f^-1(y) and log|det df^-1/dy|.

        Args:
          y: Array of shape ``[*batch, *event]``.

        Returns:
          The preimage of y, and its log-determinant in nats, at least float32, of shape
          ``[*batch]``.

        Raises:
          ValueError: If y has fewer axes than an event, or an event of the wrong shape.
        """
        self._check_inverse_input_shape(y)
        x, log_det = self._inverse(y)
        return x, self._checked(log_det, y, self.event_ndims_out)

    def _check_forward_input_shape(self, x: Array) -> None:
        self._check_rank(x, self.event_ndims_in)

    def _check_inverse_input_shape(self, y: Array) -> None:
        self._check_rank(y, self.event_ndims_out)

    def _check_rank(self, value: Array, event_ndims: int) -> None:
        if value.ndim < event_ndims:
            raise ValueError(
                f"{self.name}: expected events of {event_ndims} axes, "
                f"got an array of shape {value.shape}"
            )

    def _checked(self, log_det: Array, value: Array, event_ndims: int) -> Array:
        batch = value.shape[: value.ndim - event_ndims]
        if log_det.shape != batch:
            raise ValueError(
                f"{self.name}: the log-determinant has shape {log_det.shape}, "
                f"but the input of shape {value.shape} has batch shape {batch}"
            )
        return log_det.astype(jnp.promote_types(log_det.dtype, jnp.float32))

    def tree_flatten(self) -> tuple[list[Any], Any]:
        """Splits the attributes into subtrees of arrays and static data."""
        static, names, children = [], [], []
        for name, value in sorted(self.__dict__.items()):
            if name in DISTRAX_FIELDS or name in self.static_fields:
                static.append((name, value))
            else:
                names.append(name)
                children.append(value)
        return children, (tuple(static), tuple(names))

    @classmethod
    def tree_unflatten(cls, aux_data: Any, children: Any) -> Bijector:
        """Rebuilds a bijector from `tree_flatten`, without calling its constructor."""
        static, names = aux_data
        bijector = object.__new__(cls)
        bijector.__dict__.update(static)
        bijector.__dict__.update(zip(names, children, strict=True))
        return bijector


def prepare_vectors(name: str, x: Array, dimension: int, batch: tuple[int, ...]) -> Array:
    """Checks vectors against the shapes of the parameters, and widens them to float32.

    Args:
      name: Name of the bijector, for the message.
      x: Vectors of shape ``[*batch, dimension]``.
      dimension: Number of dimensions that the parameters are for.
      batch: Batch axes of the parameters, which must broadcast to those of x.

    Returns:
      x in float32 or wider.

    Raises:
      ValueError: If x has another number of dimensions, or the batch axes of the parameters don't
        broadcast to its own.
    """
    check_event_shape(name, x.shape, (dimension,))
    if not broadcasts_to(batch, x.shape[:-1]):
        raise ValueError(
            f"{name}: parameters of batch shape {batch} don't broadcast to the batch axes of the "
            f"input of shape {x.shape}"
        )
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
