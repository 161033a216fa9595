"""Conditioners: networks whose outputs parametrise bijectors, as pytrees.

A `Conditioner` holds a static module next to its variables and context, so that bijectors cross jit
and scan with the network inside them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

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
