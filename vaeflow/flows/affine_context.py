"""Parameters of a bijector that are affine in the context."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Parameters = dict[str, Any]

NOISE = 0.01
"""Standard deviation of the small numbers with which a flow starts near the identity."""


def affine_in_context(
    key: Array, base: dict[str, Array], context: Float[Array, "*batch feature"] | None
) -> Parameters:
    """Makes what is learned so that each parameter is base + context . kernel.

    Kernels start small, not at zero, so that gradients reach the network behind the context.

    Args:
      key: Random key.
      base: First values of the parameters, by name.
      context: Any context of the shape to come, or None.

    Returns:
      ``{"base": ...}``, and where there is a context ``"kernel"``, with arrays
      ``[feature, *parameter]`` by the same names.
    """
    if context is None:
        return {"base": base}
    features = context.shape[-1]
    scale = NOISE / math.sqrt(max(features, 1))
    keys = jax.random.split(key, len(base))
    kernel = {
        name: scale * jax.random.normal(part, (features, *value.shape))
        for part, (name, value) in zip(keys, sorted(base.items()), strict=True)
    }
    return {"base": base, "kernel": kernel}


def at_context(
    parameters: Parameters, context: Float[Array, "*batch feature"] | None
) -> dict[str, Array]:
    """Computes the parameters, ``[*batch, *parameter]`` each, at a context.

    Args:
      parameters: From `affine_in_context`.
      context: Vectors, or None where the parameters were made without.

    Raises:
      ValueError: If the context hasn't the features that the parameters were made for.
    """
    base, kernel = parameters["base"], parameters.get("kernel")
    expected = None if kernel is None else next(iter(kernel.values())).shape[0]
    got = None if context is None else context.shape[-1]
    if got != expected:
        raise ValueError(
            f"context must have the features it had in init, {expected}, got {got}"
            + ("" if context is None else f" in shape {context.shape}")
        )
    if context is None:
        return base
    context = context.astype(jnp.promote_types(context.dtype, jnp.float32))
    return {name: value + jnp.tensordot(context, kernel[name], 1) for name, value in base.items()}
