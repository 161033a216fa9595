"""What a flow is conditioned on, and what it is initialised from."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

ROWS_OF_NOISE = 64
"""Number of examples drawn to initialise a flow that is given no data."""


def prepare_context(context: Array | None, classes: int | None) -> Array | None:
    """Turns class labels into one-hot vectors and leaves other contexts as they are.

    Args:
      context: None, integer labels ``[*batch]``, or an array of floats.
      classes: Number of classes where the context is a label, otherwise None.

    Raises:
      ValueError: If there are classes but the context isn't made of integers, or the reverse.
    """
    if context is None:
        if classes is not None:
            raise ValueError(f"context: labels of {classes} classes are needed, got None")
        return None
    context = jnp.asarray(context)
    integer = jnp.issubdtype(context.dtype, jnp.integer)
    if integer != (classes is not None):
        raise ValueError(
            "context must hold integer labels where classes is given and floats where it isn't; "
            f"got dtype {context.dtype} and classes={classes}"
        )
    return jax.nn.one_hot(context, classes) if integer else context


def initial_data(
    module: nn.Module,
    data: Array | None,
    event_shape: tuple[int, ...],
    batch: tuple[int, ...] | None,
) -> Array | None:
    """Chooses what `init` sends through a flow: the data given, or else standard normal noise.

    Args:
      module: The flow.
      data: The first batch, ``[batch, *event]``, or None.
      event_shape: Shape of an event.
      batch: Batch axes of the context, or None where there is no context.

    Returns:
      Float32 data of shape ``[*batch, *event]``, or None outside `init`.

    Raises:
      ValueError: If the data's events have another shape, or the context another batch axis.
    """
    if not module.is_initializing():
        return None
    if batch is not None and (len(batch) != 1 or (data is not None and batch[0] != len(data))):
        rows = "one" if data is None else f"{len(data)} rows on one"
        raise ValueError(f"context must have {rows} batch axis in init, got batch axes {batch}")
    if data is None:
        shape = ((ROWS_OF_NOISE,) if batch is None else batch) + tuple(event_shape)
        return jax.random.normal(module.make_rng("params"), shape)
    if data.ndim != len(event_shape) + 1 or data.shape[1:] != tuple(event_shape):
        raise ValueError(
            f"data must have shape (batch, {', '.join(map(str, event_shape))}), got {data.shape}"
        )
    return data.astype(jnp.float32)
