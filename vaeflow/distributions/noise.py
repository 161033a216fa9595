"""The base distribution of flows."""

from __future__ import annotations

from collections.abc import Sequence

import distrax
import jax.numpy as jnp


def standard_normal(
    event_shape: Sequence[int], batch_shape: Sequence[int] = (), temperature: float = 1.0
) -> distrax.Distribution:
    """Builds independent normals with mean zero and a common standard deviation.

    Args:
      event_shape: Shape of a sample.
      batch_shape: Shape of the batch of distributions.
      temperature: Standard deviation; 1 is the density of the model, less gives samples that are
        more typical and less diverse (Kingma & Dhariwal 2018, section 5).

    Returns:
      A distrax distribution of events of shape `event_shape`, in float32.
    """
    zeros = jnp.zeros((*batch_shape, *event_shape), jnp.float32)
    scale = jnp.broadcast_to(jnp.asarray(temperature, jnp.float32), zeros.shape)
    return distrax.Independent(distrax.Normal(zeros, scale), len(event_shape))
