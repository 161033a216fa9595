"""Networks from images to features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


class DenseEncoder(nn.Module):
    """A multilayer perceptron over all entries of an image.

    A context is concatenated to the entries.

    Attributes:
      hidden: Sizes of the layers, each followed by the activation; the last makes the features.
      activation: The nonlinearity.
      dtype: Type to compute in; the features are float32 or wider.
    """

    hidden: Sequence[int] = (200, 200)
    activation: Callable[[Array], Array] = nn.tanh
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        values: Float[Array, "batch height width channel"],
        context: Float[Array, "batch condition"] | None = None,
    ) -> Float[Array, "batch feature"]:
        """Maps images to features."""
        x = values.reshape(values.shape[0], -1)
        if context is not None:
            x = jnp.concatenate([x, context.astype(x.dtype)], axis=-1)
        x = x.astype(self.dtype)
        for size in self.hidden:
            x = self.activation(nn.Dense(size, dtype=self.dtype)(x))
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))
