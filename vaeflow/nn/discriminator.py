"""Networks that tell samples of two distributions apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.nn.conditioners import MLP


class LatentDiscriminator(nn.Module):
    """A multilayer perceptron from latents to the logit that they are of the first of two kinds.

    Trained by cross entropy on as many samples of p as of q, its logit estimates log p(z) / q(z).
    At first it is zero.

    Source: Kim & Mnih 2018, "Disentangling by factorising", appendix A (six layers of 1000 units).

    Attributes:
      hidden: Sizes of the hidden layers, each followed by a leaky ReLU of slope 0.2.
      dtype: Type to compute in; the logits are float32 or wider.
    """

    hidden: Sequence[int] = (1000,) * 6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, latents: Float[Array, "batch latent"]) -> Float[Array, " batch"]:
        """Computes one logit for each vector."""
        return MLP(1, self.hidden, leaky_relu, self.dtype)(latents)[..., 0]


def leaky_relu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Computes max(x, 0.2 x)."""
    return jax.nn.leaky_relu(x, 0.2)
