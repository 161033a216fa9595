"""Features of a coarser map, for a network over the positions of a finer one."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.nn.activation import relu
from vaeflow.nn.blocks import ResidualBlock
from vaeflow.nn.convolution import Conv


class UpsampledConditioner(nn.Module):
    """A residual stack over the map of the level above, then repeated up to the size below.

    Position (i, j) of the map below gets the features of position (i h' // h, j w' // w).

    Source: Razavi, van den Oord & Vinyals 2019, "Generating diverse high-fidelity images with
    VQ-VAE-2", section 3.2 (a residual network, as conditioning of the bottom prior on the top).

    Attributes:
      shape: Height h and width w of the map below.
      codes: Number of codes where the map above holds codes; None where it holds features.
      channels: Number of features.
      blocks: Number of residual blocks.
      dtype: Type to compute in.
    """

    shape: tuple[int, int]
    codes: int | None = None
    channels: int = 64
    blocks: int = 2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, above: Array) -> Array:
        """Maps the level above to ``[*batch, h, w, channels]``.

        Args:
          above: Codes ``[*batch, h', w']``, or features ``[*batch, h', w', channel]``.

        Raises:
          ValueError: If these aren't codes where `codes` is given and features where it isn't, or
            have too few axes.
        """
        integer = jnp.issubdtype(above.dtype, jnp.integer)
        event_ndims = 3 if self.codes is None else 2
        if integer != (self.codes is not None) or above.ndim < event_ndims:
            expected = "[*batch, height, width" + (", channel]" if self.codes is None else "]")
            raise ValueError(
                f"above must hold {'features' if self.codes is None else 'codes'} {expected} for "
                f"codes={self.codes}, got {above.dtype} of shape {above.shape}"
            )
        batch = above.shape[: above.ndim - event_ndims]
        x = above.reshape((math.prod(batch), *above.shape[len(batch) :]))
        if self.codes is not None:
            vectors = nn.Embed(
                self.codes, self.channels, embedding_init=nn.initializers.normal(1.0)
            )
            x = vectors(jnp.clip(x, 0, self.codes - 1))
        x = Conv(self.channels, (3, 3), dtype=self.dtype)(x)
        for _ in range(self.blocks):
            x = ResidualBlock(dtype=self.dtype)(x)
        x = resize_nearest(relu(x), self.shape)
        return x.reshape((*batch, *x.shape[1:]))


def resize_nearest(
    x: Float[Array, "*batch height width channel"], size: tuple[int, int]
) -> Float[Array, "*batch out_height out_width channel"]:
    """Repeats the pixels of h' x w' maps to h x w: (i, j) is what was at (i h' // h, j w' // w)."""
    for axis, length in zip((-3, -2), size, strict=True):
        x = jnp.take(x, jnp.arange(length) * x.shape[axis] // length, axis=axis)
    return x
