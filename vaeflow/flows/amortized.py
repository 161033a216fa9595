"""Parameters of a step that are affine in a context, for amortized posteriors."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.checks import check_context

SMALL_SCALE = 0.01
"""Standard deviation of parameters that start near zero, where a flow starts near the identity."""


def init_amortized(
    key: Array, base: dict[str, Array], context: Float[Array, "*batch feature"] | None
) -> dict[str, Any]:
    """Creates parameters that are affine in a context: base + context . kernel.

    Kernels start small rather than zero, so that gradients reach the network behind the context.

    Args:
      key: Random key.
      base: Initial values of the parameters, by name.
      context: Any context of the later shape, or None.

    Returns:
      ``{"base": ...}``, and where there is a context ``"kernel"``, with arrays
      ``[feature, *parameter]`` by the same names.
    """
    if context is None:
        return {"base": base}
    features = context.shape[-1]
    scale = SMALL_SCALE / math.sqrt(max(features, 1))
    keys = jax.random.split(key, len(base))
    kernel = {
        name: scale * jax.random.normal(part, (features, *value.shape), jnp.float32)
        for part, (name, value) in zip(keys, sorted(base.items()), strict=True)
    }
    return {"base": base, "kernel": kernel}


def amortized_features(params: dict[str, Any]) -> int:
    """Number of features of the context of `init_amortized`, 0 for none."""
    return next(iter(params["kernel"].values())).shape[0] if "kernel" in params else 0


def amortized(
    params: dict[str, Any], context: Float[Array, "*batch feature"] | None
) -> dict[str, Array]:
    """Computes parameters, ``[*batch, *parameter]`` each, at a context.

    Args:
      params: From `init_amortized`.
      context: Vectors, or None where the parameters were created without.

    Raises:
      ValueError: If the context has another number of features than in `init_amortized`.
    """
    context = check_context(context, features=amortized_features(params))
    base, kernel = params["base"], params.get("kernel")
    if context is None:
        return base
    context = context.astype(jnp.promote_types(context.dtype, jnp.float32))
    return {name: value + jnp.tensordot(context, kernel[name], 1) for name, value in base.items()}
