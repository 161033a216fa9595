"""Base class of bijectors, and the conditioners that parametrise them.

A bijector is a distrax bijector and a pytree; it computes ``[*batch, *event]`` to ``[*batch,
*event]`` with log-determinants ``[*batch]``, float32 or wider whatever the type of the input. A
`Conditioner` holds a static module next to its variables and context, so that bijectors cross jit
and scan with the network inside them.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from typing import Any, ClassVar

import distrax
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from vaeflow._util.arrays import broadcasts_to, check_event_shape

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
      composition: How the bijector is composed of others, "chain" or "inverse"; None where it
        isn't.
    """

    static_fields: ClassVar[tuple[str, ...]] = ()
    composition: ClassVar[str | None] = None

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

    def same_as(self, other: distrax.Bijector) -> bool:
        """Whether both have equal static parts and the very same arrays.

        Values aren't compared, so that it can be asked while a function is traced.
        """
        mine, theirs = jax.tree.flatten(self), jax.tree.flatten(other)
        return mine[1] == theirs[1] and all(a is b for a, b in zip(mine[0], theirs[0], strict=True))

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


CONDITIONED = "conditioned"
"""Name of conditioners' outputs in the policies of `jax.checkpoint`."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["variables", "context"],
    meta_fields=["module", "event_ndims", "context_ndims"],
)
@dataclasses.dataclass(frozen=True)
class Conditioner:
    """A network with its variables and context, as a pytree.

    The module is static and compared by value; variables and context are leaves. A bijector that
    holds a conditioner therefore neither retraces nor leaks tracers.

    Attributes:
      module: An unbound Flax module (``parent=None``), or any hashable object with
        ``apply(variables, x, context)``. It is called on exactly one batch axis.
      variables: The module's variables.
      context: None, or an array of shape ``[*batch, *context]`` whose batch axes broadcast against
        those of the input.
      event_ndims: Number of trailing axes that make an event of the input.
      context_ndims: Number of trailing axes that make an event of the context: 1 for vectors, 3
        for feature maps.
    """

    module: Any
    variables: Any
    context: Float[Array, "*batch_and_context"] | None = None
    event_ndims: int = 1
    context_ndims: int = 1

    def __call__(self, x: Float[Array, "*batch_and_event"]) -> Float[Array, "*batch_and_out"]:
        """Applies the network to x of shape ``[*batch, *event]``.

        Raises:
          ValueError: If the batch axes of the context don't broadcast to those of x.
        """
        batch = x.shape[: x.ndim - self.event_ndims]
        # Not -1, which can't be resolved for an empty event.
        rows = x.reshape((math.prod(batch), *x.shape[len(batch) :]))
        out = self.module.apply(self.variables, rows, self.rows_of_context(x))
        return checkpoint_name(out.reshape(batch + out.shape[1:]), CONDITIONED)

    def rows_of_context(
        self, x: Float[Array, "*batch_and_event"]
    ) -> Float[Array, "row *context"] | None:
        """Broadcasts the context to the examples of x, on one batch axis; None without a context.

        Raises:
          ValueError: If the batch axes of the context don't broadcast to those of x.
        """
        if self.context is None:
            return None
        batch = x.shape[: x.ndim - self.event_ndims]
        event = self.context.shape[self.context.ndim - self.context_ndims :]
        try:
            context = jnp.broadcast_to(self.context, batch + event)
        except ValueError:
            raise ValueError(
                f"context of shape {self.context.shape} has batch axes that don't broadcast to "
                f"{batch}, those of the input of shape {x.shape}"
            ) from None
        return context.reshape((math.prod(batch), *event))
