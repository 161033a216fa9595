"""Normalizations of the features of one image, by its own statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

EPSILON = 1e-5
"""What is added to variances: it keeps constant features, and their gradients, finite."""


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
    """Gives each feature of each image mean zero and variance one over its positions.

    A variance v becomes v / (v + `EPSILON`): where a feature is the same everywhere nothing is left
    of it but rounding, and gradients are finite.

    Source: Ulyanov, Vedaldi & Lempitsky 2016, "Instance normalization: the missing ingredient for
    fast stylization".

    Raises:
      ValueError: If there is a single position, of which nothing would be left.
    """
    if x.shape[1] * x.shape[2] == 1:
        raise ValueError(f"instance_norm: x must have 2 positions or more, got shape {x.shape}")
    return standardized(x, (1, 2))


def adaptive_instance_norm(
    x: Float[Array, "batch height width channel"],
    scale: Float[Array, "batch channel"],
    shift: Float[Array, "batch channel"],
) -> Float[Array, "batch height width channel"]:
    """Gives each feature of each image a mean and a deviation: scale * instance_norm(x) + shift.

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
    """Gives each image mean zero and variance one over all of it, then scales and shifts features.

    Unlike `instance_norm` it keeps what features differ in, as what a style says of them.

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
