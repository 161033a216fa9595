"""Gaussian likelihoods."""

from __future__ import annotations

import distrax
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

SMALLEST_SCALE = 1e-3
"""Least deviation of an entry: a quarter of a grey level of 8 bits."""


class GaussianLikelihood(nn.Module):
    """Independent normals around a mean; for images that are dequantized.

    The scale is fixed, or one learned number for all entries, or learned for each entry as the
    network says.

    Attributes:
      scale: The fixed deviation, or None where it is learned.
      shared: Whether a learned scale is one number for all entries.
    """

    scale: float | None = None
    shared: bool = False

    @property
    def parameters(self) -> int:
        """Numbers that the network gives for each entry."""
        return 1 if self.scale is not None or self.shared else 2

    @nn.compact
    def __call__(
        self, numbers: Float[Array, "*batch height width channel parameter"]
    ) -> distrax.Independent:
        """Builds the distributions of images.

        Raises:
          ValueError: If a fixed scale isn't positive.
        """
        mean = numbers[..., 0]
        if self.scale is not None:
            if not self.scale > 0:
                raise ValueError(f"scale must be above 0, got {self.scale}")
            scale = jnp.full(mean.shape, self.scale)
        elif self.shared:
            log_scale = self.param("log_scale", nn.initializers.constant(-1.0), ())
            scale = jnp.broadcast_to(SMALLEST_SCALE + jnp.exp(log_scale), mean.shape)
        else:
            scale = SMALLEST_SCALE + nn.softplus(numbers[..., 1])
        return distrax.Independent(distrax.Normal(mean, scale), 3)

    def initial(
        self, data: Float[Array, "rows height width channel"]
    ) -> Float[Array, "height width channel parameter"]:
        """The means of the data, and where each entry has a scale, their deviations."""
        mean = jnp.mean(data, axis=0)
        if self.parameters == 1:
            return mean[..., None]
        deviation = jnp.maximum(jnp.std(data, axis=0), 2 * SMALLEST_SCALE)
        raw = jnp.log(jnp.expm1(deviation - SMALLEST_SCALE))
        return jnp.stack([mean, raw], axis=-1)
