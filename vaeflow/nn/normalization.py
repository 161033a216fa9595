"""Normalisation: actnorm statistics of a first batch, instance and layer norms of images.

Sources: Kingma & Dhariwal 2018, "Glow", section 3.1 (actnorm); Huang & Belongie 2017 (adaptive
instance normalisation); Ba, Kiros & Hinton 2016 (layer normalisation).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.arrays import compute_dtype
from vaeflow.nn.convolution import convolution


class Statistics(NamedTuple):
    """Of each column of a batch: float32 or wider, ``[*event]``.

    Attributes:
      mean: The mean; of a constant column exactly its value.
      deviation: The standard deviation, with the number of rows as divisor; zero where all values
        are equal, and only there.
    """

    mean: Float[Array, "*event"]
    deviation: Float[Array, "*event"]

    def log_scale(self) -> Float[Array, "*event"]:
        """Computes the logarithm of the deviation, or 0 for a constant column: its unit stays."""
        return jnp.log(jnp.where(self.deviation > 0, self.deviation, 1))


def column_statistics(
    data: Float[Array, "*rows_and_event"], axes: Sequence[int] = (0,)
) -> Statistics:
    """Computes the statistics that all data-dependent initialisation starts from.

    Columns of every unit are treated alike: their values are scaled by powers of two, which rounds
    nothing, so that neither sums nor squares overflow or vanish. A deviation is at least the
    rounding of the largest value.

    Args:
      data: A batch.
      axes: Axes of rows, which are averaged over.
    """
    data = data.astype(jnp.promote_types(data.dtype, jnp.float32))
    axes = tuple(axes)
    least, most = (each(data, axis=axes, keepdims=True) for each in (jnp.min, jnp.max))
    size = jnp.maximum(jnp.abs(least), jnp.abs(most))
    unit = _power_of_two(size)
    scaled = data / unit
    mean = jnp.mean(scaled, axis=axes, keepdims=True)
    centred = scaled - mean
    spread = _power_of_two(jnp.max(jnp.abs(centred), axis=axes, keepdims=True))
    variance = jnp.mean(jnp.square(centred / spread), axis=axes, keepdims=True)
    rounding = jnp.finfo(data.dtype).eps * size / unit
    deviation = unit * jnp.maximum(spread * jnp.sqrt(variance), rounding)
    constant = least == most
    mean, deviation = jnp.where(constant, least, unit * mean), jnp.where(constant, 0, deviation)
    return Statistics(jnp.squeeze(mean, axes), jnp.squeeze(deviation, axes))


def _power_of_two(size: Array) -> Array:
    """The largest power of two that is at most `size`; 1 for zero."""
    _, exponent = jnp.frexp(jnp.where(size > 0, size, 1))
    return jnp.ldexp(jnp.ones_like(size), exponent - 1)


def actnorm_parameters(
    data: Float[Array, "*rows channel"],
) -> tuple[Float[Array, " channel"], Float[Array, " channel"]]:
    """Computes the actnorm that gives each channel of a batch mean zero and variance one.

    A constant channel becomes zero, in its unit.

    Args:
      data: A batch; every axis but the last is averaged over.

    Returns:
      ``shift`` and ``log_scale`` of y = (x + shift) exp(log_scale), each ``[channel]``, float32
      or wider.
    """
    statistics = column_statistics(data, range(data.ndim - 1))
    return -statistics.mean, -statistics.log_scale()


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
        kernel = self.param("kernel", nn.initializers.normal(0.05), shape, jnp.float32)
        statistics = None
        if self.is_initializing():
            statistics = actnorm_parameters(convolution(x.astype(jnp.float32), kernel))
        shift = data_dependent_param(self, "shift", lambda: statistics[0])
        log_scale = data_dependent_param(self, "log_scale", lambda: statistics[1])
        scale = jnp.exp(log_scale)
        dtype = compute_dtype(self.dtype, x, kernel)
        y = convolution(x.astype(dtype), (kernel * scale).astype(dtype))
        return y + (shift * scale).astype(dtype)


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
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        shift = self.param("shift", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        return (standardized(x, (1, 2, 3)) * scale + shift).astype(self.dtype)
