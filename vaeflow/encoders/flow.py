"""Posteriors that are bent by flows."""

from __future__ import annotations

import distrax
import flax.linen as nn
from jaxtyping import Array, Float

from vaeflow.distributions import Transformed


class FlowPosterior(nn.Module):
    """A distribution of noise carried through a flow: z = f(e; h) with e ~ q0(e | x).

    log q(z | x) = log q0(e | x) - log|det df/de|. The base and, where `amortised`, the parameters
    of the flow follow the features h. Samples with their densities are cheap where the flow's
    forward is (planar, radial, Sylvester, inverse autoregressive, couplings); the density of a
    given z takes its inverse, which for planar, radial and Sylvester flows is a search for each
    step and for inverse autoregressive ones goes entry by entry.

    Source: Rezende & Mohamed 2015, "Variational inference with normalizing flows", section 4.2.

    Attributes:
      base: A posterior of the noise, such as `DiagonalGaussianPosterior`.
      flow: A flow of vectors, of as many entries as the base has latents.
      amortised: Whether the features are the flow's context.
    """

    base: nn.Module
    flow: nn.Module
    amortised: bool = True

    @property
    def latents(self) -> int:
        """Number of latents."""
        return self.base.latents

    def standard(self, temperature: float = 1.0) -> distrax.Distribution:
        """The prior that goes with it: that of the base."""
        return self.base.standard(temperature)

    def __call__(self, features: Float[Array, "batch feature"]) -> Transformed:
        """Builds the distributions.

        Raises:
          ValueError: If the flow's noise hasn't the shape of the base's samples.
        """
        base: distrax.Distribution = self.base(features)
        if base.event_shape != tuple(self.flow.noise_shape):
            raise ValueError(
                f"flow must have noise of the shape of the base's samples, {base.event_shape}, got "
                f"{tuple(self.flow.noise_shape)}"
            )
        return Transformed(base, self.flow(features if self.amortised else None))
