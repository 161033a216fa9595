"""Quantisation of each channel by itself, without a learned codebook.

`FiniteScalarQuantizer` rounds to a few levels (Mentzer et al. 2023), `LookupFreeQuantizer` takes
signs (Yu et al. 2023).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vaeflow._util.arrays import Axis
from vaeflow.quantizers.base import (
    MOST_CODES,
    Quantizer,
    Result,
    Vectors,
    mean_square,
    nan_out_of_range,
    straight_through,
)

OVERLAP = 1e-3
"""How far bounds lie beyond the outer levels, as a share: these are reached at finite features."""


class FiniteScalarQuantizer(Quantizer):
    """Rounds each channel to one of a few levels: all combinations are codes.

    With L levels, x becomes f(x) = h tanh(x + a) - b, rounded, where h = (L - 1) (1 + 0.001) / 2,
    b = 1/2 for even L and 0 for odd, and a = artanh(b / h), so that f(0) = 0. That would leave one
    of two levels to features below -3.8: for L = 2, a is 0, and the levels meet at x = 0. Divided
    by floor(L / 2), the levels lie in [-1, 1]. Nothing is learned and there are no losses. The
    gradient is that of f: h (1 - tanh(x + a)^2) / floor(L / 2). Each level takes between 0.4 and
    1.6 times an L-th of standard normal features.

    The index is that of a number system: sum_i d_i prod_(j < i) L_j, with the level of channel i
    counted from d_i = 0.

    Shapes: features are ``[batch, *positions, channel]``, indices ``[batch, *positions]``.

    Source: Mentzer, Minnen, Agustsson & Tschannen 2023, "Finite scalar quantization: VQ-VAE made
    simple", section 3.1 and the listing of the appendix. There h is (L - 1) (1 - 0.001) / 2, whose
    bounds lie short of the outer levels, and a is tan(b / h), at which f(0) isn't 0 for even L.

    Attributes:
      levels: Number L of levels of each channel, 2 or more, such as (8, 5, 5, 5) for 1,000 codes.
    """

    levels: Sequence[int]

    @property
    def num_codes(self) -> int:
        """Number of codes."""
        return math.prod(self.levels)

    def _check_fields(self) -> None:
        if not self.levels or min(self.levels) < 2 or self.num_codes > MOST_CODES:
            raise ValueError(
                "FiniteScalarQuantizer: levels must be numbers of 2 or more with a product of at "
                f"most {MOST_CODES}, got {tuple(self.levels)}"
            )

    def _num_channels(self) -> int:
        return len(self.levels)

    def _quantize(self, vectors: Vectors, rng: Array | None, *, axis: Axis, train: bool) -> Result:
        del rng, axis, train
        levels = np.asarray(self.levels)
        half = (levels - 1) * (1 + OVERLAP) / 2
        below = np.where(levels % 2 == 0, 0.5, 0.0)
        dtype = vectors.values.dtype
        shift = np.where(levels == 2, 0.0, np.arctanh(below / half))
        half, below, shift = (jnp.asarray(value, dtype) for value in (half, below, shift))
        bounded = half * jnp.tanh(vectors.values + shift) - below
        digits = jnp.round(jax.lax.stop_gradient(bounded)).astype(jnp.int32) + levels // 2
        digits = jnp.clip(digits, 0, levels - 1)
        bounded = bounded / (levels // 2).astype(dtype)
        values = self._values(digits, dtype) + (bounded - jax.lax.stop_gradient(bounded))
        indices = jnp.sum(digits * self._place_values(), axis=-1, dtype=jnp.int32)
        return values, indices, {}

    def lookup(self, indices: Int[Array, "*batch"]) -> Float[Array, "*batch channel"]:
        """Computes the levels of indices; see `Quantizer.lookup`."""
        digits = indices[..., None] // self._place_values() % np.asarray(self.levels, np.int32)
        return nan_out_of_range(self._values(digits, jnp.float32), indices, self.num_codes)

    def _place_values(self) -> Int[np.ndarray, " channel"]:
        """Values of the digits of an index."""
        return np.cumprod([1, *self.levels[:-1]], dtype=np.int32)

    def _values(self, digits: Array, dtype) -> Array:
        center = np.asarray(self.levels, np.int32) // 2
        return (digits - center).astype(dtype) / center.astype(dtype)


class LookupFreeQuantizer(Quantizer):
    """Replaces each channel by its sign: the codes are the corners of a cube, {-1, 1}^bits.

    0 counts as negative. The index is sum_i 2^i [x_i > 0], the gradient `straight_through`. Its
    losses are "commitment", ||x - sg(q)||^2, and "entropy", whose mean over the batch is
    E[H(q(c | x))] - H(E[q(c | x)]) with q(c | x) proportional to exp(-||x - c||^2 / temperature)
    and means over all latents of the batch: the negative mutual information of latents and codes,
    least where q(c | x) is certain for each latent and all codes are used equally often. The share
    of an example is sum_c q(c | x) log(q(c | x) / E[q(c | x)]) with the opposite sign, E[q] held
    constant, which changes no gradient of the mean.

    The bits are independent given x, so their entropies add up; and E[q(c | x)] is a product of two
    matrices, over the first and the second half of the bits. Memory grows with 2^(bits / 2) times
    the number of latents, and with 2^bits.

    Shapes: features are ``[batch, *positions, channel]``, indices ``[batch, *positions]``.

    Source: Yu et al. 2023, "Language model beats diffusion: tokenizer is key to visual generation"
    (MAGVIT-v2), section 3.1; the temperature is that of the authors' published code.

    Attributes:
      bits: Number of channels, from 1 to 24.
      temperature: Temperature of q(c | x).
    """

    bits: int
    temperature: float = 0.01

    @property
    def num_codes(self) -> int:
        """Number of codes."""
        return 2**self.bits

    def _check_fields(self) -> None:
        if not 1 <= self.bits < MOST_CODES.bit_length():
            raise ValueError(
                f"LookupFreeQuantizer: bits must be in 1..{MOST_CODES.bit_length() - 1}, got "
                f"{self.bits}"
            )
        if not self.temperature > 0:
            raise ValueError(
                f"LookupFreeQuantizer: temperature must be above 0, got {self.temperature}"
            )

    def _num_channels(self) -> int:
        return self.bits

    def _quantize(self, vectors: Vectors, rng: Array | None, *, axis: Axis, train: bool) -> Result:
        del rng, train
        x = vectors.values
        positive = x > 0
        indices = jnp.sum(positive * self._place_values(), axis=-1, dtype=jnp.int32)
        signs = jnp.where(positive, 1, -1).astype(x.dtype)
        losses = {
            "commitment": mean_square(x - signs),
            "entropy": jnp.mean(_negative_information(vectors, self.temperature, axis), axis=1),
        }
        return straight_through(x, signs), indices, losses

    def lookup(self, indices: Int[Array, "*batch"]) -> Float[Array, "*batch channel"]:
        """Computes the signs of indices; see `Quantizer.lookup`."""
        positive = indices[..., None] & self._place_values() > 0
        values = jnp.where(positive, jnp.float32(1), jnp.float32(-1))
        return nan_out_of_range(values, indices, self.num_codes)

    def _place_values(self) -> Int[np.ndarray, " bit"]:
        return 2 ** np.arange(self.bits, dtype=np.int32)


def _negative_information(
    vectors: Vectors, temperature: float, axis: Axis
) -> Float[Array, "batch position"]:
    """The terms whose mean over the batch is the conditional less the marginal entropy."""
    # ||x - c||^2 differs by 4 x between the two signs of a bit.
    logits = 4 * vectors.values / temperature
    size = jnp.abs(logits)
    conditional = jnp.sum(jax.nn.softplus(-size) + size * jax.nn.sigmoid(-size), axis=-1)
    half = logits.shape[-1] // 2
    first, second = _products(logits[..., :half]), _products(logits[..., half:])
    highest = jax.lax.Precision.HIGHEST
    # Latents that aren't finite count nowhere.
    counted = jnp.where(vectors.finite[..., None], second, 0)
    total, count = axis.sum(
        (
            jnp.einsum("npi,npj->ij", first, counted, precision=highest),
            jnp.sum(vectors.finite, dtype=logits.dtype),
        )
    )
    average = jax.lax.stop_gradient(total / jnp.maximum(count, 1))
    log_average = jnp.log(jnp.maximum(average, jnp.finfo(average.dtype).tiny))
    expected = jnp.einsum("npi,ij->npj", first, log_average, precision=highest)
    return conditional + jnp.sum(expected * second, axis=-1)


def _products(logits: Float[Array, "*batch bit"]) -> Float[Array, "*batch code"]:
    """Probabilities of all values of a few independent bits."""
    probability = jnp.ones((*logits.shape[:-1], 1), logits.dtype)
    for bit in range(logits.shape[-1]):
        pair = jax.nn.sigmoid(jnp.stack([-logits[..., bit], logits[..., bit]], axis=-1))
        probability = pair[..., :, None] * probability[..., None, :]
        probability = probability.reshape(*logits.shape[:-1], 2 ** (bit + 1))
    return probability
