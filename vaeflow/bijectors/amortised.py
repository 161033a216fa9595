"""What bijectors share whose parameters may differ from one example to the next."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array

from vaeflow.bijectors.base import check_event_shape


def broadcasts_to(parameters: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether parameters of one shape broadcast to another, and leave it as it is."""
    try:
        return jnp.broadcast_shapes(parameters, shape) == shape
    except ValueError:
        return False


def prepare_vectors(name: str, x: Array, dimension: int, batch: tuple[int, ...]) -> Array:
    """Checks vectors against the shapes of the parameters, and widens them to float32.

    Args:
      name: Name of the bijector, for the message.
      x: Vectors of shape ``[*batch, dimension]``.
      dimension: Number of entries that the parameters are for.
      batch: Batch axes of the parameters, which must broadcast to those of x.

    Returns:
      x in float32 or wider.

    Raises:
      ValueError: If x has another number of entries, or batch axes that those of the parameters
        don't broadcast to.
    """
    check_event_shape(name, x.shape, (dimension,))
    if not broadcasts_to(batch, x.shape[:-1]):
        raise ValueError(
            f"{name}: parameters of batch shape {batch} don't broadcast to the batch axes of the "
            f"input of shape {x.shape}"
        )
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
