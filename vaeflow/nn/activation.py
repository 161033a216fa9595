"""Activations that keep little for their gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_vjp
def relu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Computes max(x, 0), differentiated through its result.

    The next layer keeps the result for its own gradient, so nothing more has to be stored, which
    halves what a loop over layers writes to memory. The derivative at zero is zero. Reverse-mode
    derivatives only.
    """
    return jnp.maximum(x, 0)


def _relu_forward(x):
    y = relu(x)
    return y, y


def _relu_backward(y, dy):
    return (jnp.where(y > 0, dy, 0),)


relu.defvjp(_relu_forward, _relu_backward)
