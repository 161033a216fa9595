"""Quantisation of each channel to a few levels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vaeflow.axis import LOCAL, Axis
from vaeflow.quantizers.base import (
    MOST_CODES,
    Quantized,
    Quantizer,
    blank_outside,
    check_channels,
    latents_of,
    quantized,
)

OVERLAP = 1e-3
"""How far bounds lie beyond the outer levels, as a share: these are reached at finite features."""


class FiniteScalarQuantizer(Quantizer):
    """Rounds each channel to one of its own few levels: all combinations are codes.

    With L levels, x becomes f(x) = h tanh(x + a) - b, rounded, where h = (L - 1) (1 + 0.001) / 2,
    b = 1/2 for even L and 0 for odd, and a = artanh(b / h), so that f(0) = 0. Divided by
    floor(L / 2), the levels lie in [-1, 1]. Nothing is learned and there are no losses. The
    gradient is that of f: h (1 - tanh(x + a)^2) / floor(L / 2).

    The index is that of a number system: sum_i d_i prod_(j < i) L_j, with the level of channel i
    counted from d_i = 0.

    Shapes: features are ``[batch, *positions, channel]``, indices ``[batch, *positions]``.

    Source: Mentzer, Minnen, Agustsson & Tschannen 2023, "Finite scalar quantization: VQ-VAE made
    simple", section 3.1 and the listing of the appendix (which has a tangent for the artanh).

    Attributes:
      levels: Number L of levels of each channel, 2 or more, such as (8, 5, 5, 5) for 1,000 codes.
    """

    levels: Sequence[int]

    @property
    def codes(self) -> int:
        """Number of codes."""
        return math.prod(self.levels)

    def __call__(
        self,
        features: Float[Array, "batch *positions channel"],
        rng: Array | None = None,
        *,
        axis: Axis = LOCAL,
        train: bool = False,
    ) -> Quantized:
        """Quantises features; see `Quantizer.__call__`. Nothing depends on the last three."""
        del rng, axis, train
        if not self.levels or min(self.levels) < 2 or self.codes > MOST_CODES:
            raise ValueError(
                "FiniteScalarQuantizer: levels must be numbers of 2 or more with a product of at "
                f"most {MOST_CODES}, got {tuple(self.levels)}"
            )
        check_channels("FiniteScalarQuantizer", features.shape, len(self.levels))
        latents = latents_of(features)
        levels = np.asarray(self.levels)
        half = (levels - 1) * (1 + OVERLAP) / 2
        below = np.where(levels % 2 == 0, 0.5, 0.0)
        dtype = latents.values.dtype
        half, below, shift = (
            jnp.asarray(value, dtype) for value in (half, below, np.arctanh(below / half))
        )
        bounded = half * jnp.tanh(latents.values + shift) - below
        digits = jnp.round(jax.lax.stop_gradient(bounded)).astype(jnp.int32) + levels // 2
        digits = jnp.clip(digits, 0, levels - 1)
        bounded = bounded / (levels // 2).astype(dtype)
        values = self._values(digits, dtype) + (bounded - jax.lax.stop_gradient(bounded))
        indices = jnp.sum(digits * self._places(), axis=-1, dtype=jnp.int32)
        return quantized(features, latents, values, indices, {}, self.codes)

    def lookup(self, indices: Int[Array, "*batch"]) -> Float[Array, "*batch channel"]:
        """Computes the levels of indices; see `Quantizer.lookup`."""
        digits = indices[..., None] // self._places() % np.asarray(self.levels, np.int32)
        return blank_outside(self._values(digits, jnp.float32), indices, self.codes)

    def _places(self) -> Int[np.ndarray, " channel"]:
        """Values of the digits of an index."""
        return np.cumprod([1, *self.levels[:-1]], dtype=np.int32)

    def _values(self, digits: Array, dtype) -> Array:
        middle = np.asarray(self.levels, np.int32) // 2
        return (digits - middle).astype(dtype) / middle.astype(dtype)
