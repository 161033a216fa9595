"""Normalisation: actnorm statistics of a first batch, instance and layer norms of images.

Sources: Kingma & Dhariwal 2018, "Glow", section 3.1 (actnorm); Huang & Belongie 2017 (adaptive
instance normalisation); Ba, Kiros & Hinton 2016 (layer normalisation).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.nn.convolution import convolution

SMALLEST_DEVIATION = 1e-4
"""Channels that vary less than this are scaled as if they varied by this much."""


def actnorm_parameters(
    data: Float[Array, "*rows channel"],
) -> tuple[Float[Array, " channel"], Float[Array, " channel"]]:
    """Computes the actnorm that gives each channel of a batch mean zero and variance one.

    Args:
      data: A batch; every axis but the last is averaged over.

    Returns:
      ``shift`` and ``log_scale`` of y = (x + shift) exp(log_scale), each ``[channel]``, float32
      or wider.
    """
    data = data.astype(jnp.promote_types(data.dtype, jnp.float32))
    rows = tuple(range(data.ndim - 1))
    deviation = jnp.maximum(jnp.std(data, axis=rows), SMALLEST_DEVIATION)
    return -jnp.mean(data, axis=rows), -jnp.log(deviation)


def data_dependent_param(module: nn.Module, name: str, compute: Callable[[], Array]) -> Array:
    """Creates a parameter whose initial value is computed from data.

    Flax traces the initialiser of a parameter on every call; this one is called by `init` only.

    Args:
      module: Module that owns the parameter, inside its compact method.
      name: Name of the parameter.
      compute: Computes the initial value; called by `init` only.
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


EPSILON = 1e-5
"""Added to variances: it keeps constant features, and their gradients, finite."""


def standardized(
    x: Float[Array, "batch height width channel"], axes: Sequence[int]
) -> Float[Array, "batch height width channel"]:
    """Subtracts the mean over some axes, and divides by the root of the variance plus `EPSILON`.

    Statistics are float32 or wider, in two passes, so that nearly constant features lose no digits.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    centred = wide - jnp.mean(wide, axis=axes, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=axes, keepdims=True)
    return (centred * jax.lax.rsqrt(variance + EPSILON)).astype(x.dtype)


def instance_norm(
    x: Float[Array, "batch height width channel"],
) -> Float[Array, "batch height width channel"]:
    """Normalises each feature of each image to mean zero and variance one over its positions.

    A variance v becomes v / (v + `EPSILON`): a constant feature becomes zero up to rounding, with
    finite gradients.

    Source: Ulyanov, Vedaldi & Lempitsky 2016, "Instance normalization: the missing ingredient for
    fast stylization".

    Raises:
      ValueError: If there is a single position, which would always become zero.
    """
    if x.shape[1] * x.shape[2] == 1:
        raise ValueError(f"instance_norm: x must have 2 positions or more, got shape {x.shape}")
    return standardized(x, (1, 2))


def adaptive_instance_norm(
    x: Float[Array, "batch height width channel"],
    scale: Float[Array, "batch channel"],
    shift: Float[Array, "batch channel"],
) -> Float[Array, "batch height width channel"]:
    """Computes scale * instance_norm(x) + shift, with a scale and shift for each image.

    Source: Huang & Belongie 2017, "Arbitrary style transfer in real-time with adaptive instance
    normalization", equation 8.

    Args:
      x: Maps of features.
      scale: Deviation of each feature of each image.
      shift: Mean of each feature of each image.

    Raises:
      ValueError: If scale and shift don't hold a number for each feature of each image.
    """
    expected = (x.shape[0], x.shape[-1])
    if scale.shape != expected or shift.shape != expected:
        raise ValueError(
            f"scale and shift must be of shape {expected} for x of shape {x.shape}, got "
            f"{scale.shape} and {shift.shape}"
        )
    scale, shift = (each[:, None, None, :].astype(x.dtype) for each in (scale, shift))
    return scale * instance_norm(x) + shift


class ImageLayerNorm(nn.Module):
    """Normalises each whole image to mean zero and variance one, then scales and shifts features.

    Unlike `instance_norm` it keeps the differences between features, which carry the style.

    Source: Ba, Kiros & Hinton 2016, "Layer normalization", equation 4, over height, width and
    channels; scale and shift are one for each channel.

    Attributes:
      dtype: Type of the result; statistics are float32 or wider.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch height width channel"]:
        """Keeps the shape."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        shift = self.param("shift", nn.initializers.zeros, (x.shape[-1],))
        return (standardized(x, (1, 2, 3)) * scale + shift).astype(self.dtype)
