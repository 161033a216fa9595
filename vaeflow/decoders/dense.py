"""Networks from latents to features of images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


class DenseDecoder(nn.Module):
    """A multilayer perceptron to all entries of an image.

    A context is concatenated to the latents.

    Attributes:
      hidden: Sizes of the hidden layers, each followed by the activation.
      activation: The nonlinearity.
      dtype: Type to compute in.
    """

    hidden: Sequence[int] = (200, 200)
    activation: Callable[[Array], Array] = nn.tanh
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        latents: Float[Array, "batch latent"],
        context: Float[Array, "batch condition"] | None = None,
        *,
        shape: tuple[int, int, int],
    ) -> Float[Array, "batch height width feature"]:
        """Maps latents to images of `shape`: height, width and features."""
        x = latents
        if context is not None:
            x = jnp.concatenate([x, context.astype(x.dtype)], axis=-1)
        x = x.astype(self.dtype)
        for size in self.hidden:
            x = self.activation(nn.Dense(size, dtype=self.dtype)(x))
        # The offset of the decoder is its bias.
        x = nn.Dense(math.prod(shape), use_bias=False, dtype=self.dtype)(x)
        return x.reshape(-1, *shape)
