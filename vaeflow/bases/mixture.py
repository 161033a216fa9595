"""Learned mixtures of Gaussians."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from vaeflow.bases.gaussian import independent_normals
from vaeflow.distributions import Mixture


class GaussianMixtureBase(nn.Module):
    """A mixture of K diagonal Gaussians with learned weights, means and deviations.

    At first the weights are equal, the means standard normal and the deviations one. The
    distribution tells clusters apart: see `Mixture.log_responsibilities`. Its samples carry no
    gradient to the weights, so it is for maximum likelihood rather than for reverse KL.

    Attributes:
      event_shape: Shape of a sample.
      components: Number of components K.
    """

    event_shape: tuple[int, ...]
    components: int

    needs_labels = False

    @nn.compact
    def __call__(
        self,
        context: Array | None = None,
        *,
        batch_shape: tuple[int, ...] = (),
        temperature: float = 1.0,
    ) -> Mixture:
        """Builds the distribution; the context is ignored.

        Args:
          context: Anything.
          batch_shape: Batch axes of the distribution.
          temperature: Factor of the deviations of each component; means and weights stay.
        """
        del context
        shape = (self.components, *self.event_shape)
        logits = self.param("logits", nn.initializers.zeros, (self.components,))
        mean = self.param("mean", nn.initializers.normal(1.0), shape)
        log_scale = self.param("log_scale", nn.initializers.zeros, shape)
        components = independent_normals(
            jnp.broadcast_to(mean, (*batch_shape, *shape)),
            jnp.broadcast_to(log_scale, (*batch_shape, *shape)),
            temperature,
            self,
        )
        return Mixture(jnp.broadcast_to(logits, (*batch_shape, self.components)), components)
