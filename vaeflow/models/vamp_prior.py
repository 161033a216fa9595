"""A prior made of posteriors."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class VampPrior(nn.Module):
    """Pseudo-inputs u_1, ..., u_K, learned, whose posteriors mix to p(z) = (1/K) sum_k q(z | u_k).

    `VAE` sends them through its encoder, which is where the name comes from: a variational mixture
    of posteriors. They start as images of the first batch, with a little noise so that repeated
    ones part.

    Source: Tomczak & Welling 2018, "VAE with a VampPrior", equation 9.

    Attributes:
      components: Number K of pseudo-inputs.
      shape: Height, width and channels of an image.
    """

    components: int
    shape: tuple[int, int, int]

    @nn.compact
    def __call__(
        self, *, data: Float[Array, "batch height width channel"] | None = None
    ) -> Float[Array, "component height width channel"]:
        """Returns the pseudo-inputs.

        Args:
          data: In `init` alone: the batch that they start from; without it they are noise.
        """

        def initial(key: Array) -> Array:
            noise = 0.01 * jax.random.normal(key, (self.components, *self.shape))
            if data is None:
                return noise
            return data[jnp.arange(self.components) % len(data)] + noise

        return self.param("inputs", initial)
