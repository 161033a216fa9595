"""Layers that are normalised by their first batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors.actnorm import actnorm_parameters
from vaeflow.nn.convolution import convolution


def data_dependent_param(module: nn.Module, name: str, compute: Callable[[], Array]) -> Array:
    """Makes a parameter whose first value is computed from the data at hand.

    Flax traces the initialiser of a parameter on every call; this one is touched by `init` alone.

    Args:
      module: Module that owns the parameter, inside its compact method.
      name: Name of the parameter.
      compute: Computes the first value; called by `init` only.
    """
    if module.is_initializing():
        return module.param(name, lambda _: compute())
    return module.get_variable("params", name)


class ActNormConv(nn.Module):
    """A convolution followed by an activation normalization, in one pass.

    y = (x * kernel + shift) exp(log_scale), computed as x * (kernel exp(log_scale)) +
    shift exp(log_scale): the normalization costs nothing per pixel. `shift` and `log_scale` give
    each feature mean zero and variance one on the batch given to `init`.

    Source: Kingma & Dhariwal 2018, section 3.1 and their published code, whose coupling networks
    normalise after each hidden convolution.

    Attributes:
      features: Number of output channels.
      kernel_size: Height and width of the kernel.
      dtype: Type to compute in; parameters are float32.
    """

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channel"]) -> Array:
        """Maps ``[batch, height, width, channel]`` to ``[batch, height, width, feature]``."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(0.05), shape)
        statistics = None
        if self.is_initializing():
            statistics = actnorm_parameters(convolution(x.astype(jnp.float32), kernel))
        shift = data_dependent_param(self, "shift", lambda: statistics[0])
        log_scale = data_dependent_param(self, "log_scale", lambda: statistics[1])
        scale = jnp.exp(log_scale)
        y = convolution(x.astype(self.dtype), (kernel * scale).astype(self.dtype))
        return y + (shift * scale).astype(self.dtype)
