"""Quantisation to a code that is drawn."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vaeflow._util.axis import LOCAL, Axis
from vaeflow.quantizers.base import (
    Quantized,
    Quantizer,
    check_channels,
    check_codes,
    latents_of,
    needed_keys,
    quantized,
    take,
)
from vaeflow.quantizers.nearest import least


class GumbelQuantizer(Quantizer):
    """Draws a code of each vector: q(k | x) = softmax(l)_k, with logits l linear in x.

    Training draws Gumbel noise g. The code is that of the largest l + g, which is a sample of
    q(k | x), and the relaxed sample is y = softmax((l + g) / temperature). The values are the
    code's, with the gradient of sum_k y_k e_k toward x; unless `hard`, they are that sum itself.
    Otherwise the code is the most probable one, with the same gradient for g = 0.

    Its loss is "kl", KL(q(k | x) || 1 / K), at most log K a latent.

    Shapes: features are ``[batch, *positions, channel]``, indices ``[batch, *positions]``.

    Source: Jang, Gu & Poole 2017, "Categorical reparameterization with Gumbel-softmax", equation 2
    and section 2.2 (hard samples); Ramesh et al. 2021, "Zero-shot text-to-image generation",
    section 2.1 (relaxed samples in training).

    Attributes:
      num_codes: Number K of codes.
      hard: Whether values in training are those of single codes.
    """

    num_codes: int
    hard: bool = True

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "batch *positions channel"],
        rng: Array | None = None,
        *,
        axis: Axis = LOCAL,
        train: bool = False,
        temperature: Float[Array, ""] | float = 1.0,
    ) -> Quantized:
        """Quantises features; see `Quantizer.__call__`. Training needs `rng`.

        Args:
          features: As for `Quantizer.__call__`.
          rng: As for `Quantizer.__call__`.
          axis: Unused, as the rows aren't coupled.
          train: Whether to draw codes.
          temperature: How far relaxed samples are from single codes, above 0; often a schedule's.
        """
        del axis
        check_codes("GumbelQuantizer", self.num_codes)
        if isinstance(temperature, int | float) and not temperature > 0:
            raise ValueError(f"GumbelQuantizer: temperature must be above 0, got {temperature}")
        if not self.is_initializing():
            channels = self.get_variable("params", "codebook").shape[-1]
            check_channels("GumbelQuantizer", features.shape, channels)
        latents = latents_of(features)
        x = latents.values
        shape = (self.num_codes, x.shape[-1])
        codes = self.param("codebook", nn.initializers.normal(1.0), shape)
        precision = jax.lax.Precision.HIGHEST
        logits = nn.Dense(self.num_codes, precision=precision, name="logits")(x)
        noisy = logits
        if train and not self.is_initializing():
            keys = needed_keys("GumbelQuantizer", rng, x.shape[0], "samples in training")
            noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:], x.dtype))(keys)
            noisy = logits + noise
        indices = least(-noisy)[1]
        relaxed = jax.nn.softmax(noisy / temperature, axis=-1)
        if train and not self.hard:
            values = jnp.matmul(relaxed, codes, precision=precision)
        else:
            change = relaxed - jax.lax.stop_gradient(relaxed)
            fixed = jax.lax.stop_gradient(codes)
            values = codes[indices] + jnp.matmul(change, fixed, precision=precision)
        log_probability = jax.nn.log_softmax(logits, axis=-1)
        negative_entropy = jnp.sum(jnp.exp(log_probability) * log_probability, axis=-1)
        kl = jnp.sum(math.log(self.num_codes) + negative_entropy, axis=-1)
        return quantized(features, latents, values, indices, {"kl": kl}, self.num_codes)

    def lookup(self, indices: Int[Array, "*batch"]) -> Float[Array, "*batch channel"]:
        """Returns the codes of indices; see `Quantizer.lookup`."""
        return take(self.get_variable("params", "codebook"), indices)
