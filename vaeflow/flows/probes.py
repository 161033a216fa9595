"""Probe noise of flows that estimate their log-determinants."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def probe_key(module: nn.Module) -> Array | None:
    """Gives the key of a flow's probe noise, or None where its log-determinants are to be exact.

    They are estimated where the flow's field `probes` isn't zero and `apply` is given an rng named
    "probe", as losses give it in training; otherwise they are exact, as in evaluation.

    Args:
      module: A flow with an integer field `probes`, in a call.

    Raises:
      ValueError: If `probes` is negative.
    """
    if module.probes < 0:
        raise ValueError(f"{type(module).__name__}: probes must be at least 0, got {module.probes}")
    if module.is_initializing() or not module.probes or not module.has_rng("probe"):
        return None
    return module.make_rng("probe")


def probe_batch(data: Array | None, context: Array | None, event_ndims: int = 1) -> tuple[int, ...]:
    """Gives the batch axes of probe noise: those of the data, or else of the context.

    With neither there are none, and all examples share their noise.

    Args:
      data: ``[*batch, *event]``, of which only the shape matters, or None.
      context: Vectors ``[*batch, feature]``, or None.
      event_ndims: Number of trailing axes that make an event of the data.
    """
    if data is not None:
        return data.shape[: data.ndim - event_ndims]
    return () if context is None else context.shape[:-1]


def random_signs(key: Array, shape: tuple[int, ...]) -> Float[Array, "*shape"]:
    """Draws +1 and -1 alike, the probes whose estimates of traces vary least.

    Source: Hutchinson 1990, "A stochastic estimator of the trace of the influence matrix for
    Laplacian smoothing splines".
    """
    return jax.random.rademacher(key, shape, jnp.float32)
