"""From latents to distributions of images."""

from __future__ import annotations

import math

import distrax
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


class Decoder(nn.Module):
    """Computes p(x | z): a network makes numbers for each entry of x, a likelihood a distribution.

    To what the network answers an offset is added for each entry of an image. It is initialised to
    the likelihood of the first batch, entry by entry, whatever z: what z changes is the network's.

    Shapes: latents are ``[*batch, latent]``, or maps ``[*batch, map_height, map_width, latent]``,
    with any number of batch axes, which are those of the distribution; events are `shape`.

    Source of the offset: Burda, Grosse & Salakhutdinov 2016, "Importance weighted autoencoders",
    whose published code sets the biases of the output so.

    Attributes:
      network: ``network(latents, context, shape=(height, width, feature))`` from ``[rows, latent]``
        to ``[rows, height, width, feature]``, such as `DenseDecoder`; or from maps, such as
        `MapDecoder`.
      likelihood: ``likelihood(numbers)`` from ``[*batch, height, width, channel, parameter]`` to a
        distribution, such as `BernoulliLikelihood`.
      shape: Height, width and channels of an image.
      latent_ndims: Number of axes of the latents of one image: 1 for vectors, 3 for maps.
    """

    network: nn.Module
    likelihood: nn.Module
    shape: tuple[int, int, int]
    latent_ndims: int = 1

    @nn.compact
    def __call__(
        self,
        latents: Float[Array, "*batch_and_positions latent"],
        context: Float[Array, "*batch condition"] | None = None,
        *,
        data: Float[Array, "rows height width channel"] | None = None,
    ) -> distrax.Distribution:
        """Builds the distributions.

        Args:
          latents: One vector, or map, for each distribution.
          context: Vectors whose batch axes broadcast to those of the latents, or None.
          data: In `init` alone: the batch that the offset is initialised from; without it the
            offset is zero.

        Raises:
          ValueError: If the latents have too few axes, or the context's batch axes don't broadcast
            to those of the latents.
        """
        if latents.ndim < self.latent_ndims:
            raise ValueError(
                f"latents must have {self.latent_ndims} axes and those of batches before them, got "
                f"shape {latents.shape}"
            )
        batch = latents.shape[: latents.ndim - self.latent_ndims]
        rows = latents.reshape(math.prod(batch), *latents.shape[len(batch) :])
        if context is not None:
            try:
                context = jnp.broadcast_to(context, (*batch, context.shape[-1]))
            except ValueError:
                raise ValueError(
                    f"context of shape {context.shape} has batch axes that don't broadcast to "
                    f"those of the latents of shape {latents.shape}"
                ) from None
            context = context.reshape(rows.shape[0], -1)
        *positions, channels = self.shape
        parameters = self.likelihood.parameters
        numbers = self.network(rows, context, shape=(*positions, channels * parameters))
        numbers = numbers.reshape(*batch, *self.shape, parameters)
        numbers = numbers.astype(jnp.promote_types(numbers.dtype, jnp.float32))

        def initial(_):
            if data is None:
                return jnp.zeros((*self.shape, parameters))
            return self.likelihood.initial(data)

        return self.likelihood(numbers + self.param("offset", initial))
