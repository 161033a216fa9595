"""Gumbel-softmax quantisation (Jang et al. 2017): a code sampled from a categorical posterior."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vaeflow._util.arrays import Axis
from vaeflow.quantizers.base import (
    Quantizer,
    Result,
    Vectors,
    lookup_codes,
)
from vaeflow.quantizers.nearest import min_and_argmin


class GumbelQuantizer(Quantizer):
    """Samples a code of each vector: q(k | x) = softmax(l)_k, with logits l linear in x.

    Training samples Gumbel noise g, from the `rng` it needs. The code is that of the largest l + g,
    which is a sample of q(k | x), and the relaxed sample is y = softmax((l + g) / temperature). The
    values are the code's, with the gradient of sum_k y_k e_k with respect to x; unless `hard`, they
    are that sum itself. In evaluation the code is the most probable one, with the same gradient for
    g = 0.

    Calls take `temperature`, above 0 and 1 by default, often from a schedule: the lower, the nearer
    relaxed samples are to single codes.

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
    def _quantize(
        self,
        vectors: Vectors,
        rng: Array | None,
        *,
        axis: Axis,
        train: bool,
        temperature: Float[Array, ""] | float = 1.0,
    ) -> Result:
        del axis  # rows aren't coupled
        if isinstance(temperature, int | float) and not temperature > 0:
            raise ValueError(f"GumbelQuantizer: temperature must be above 0, got {temperature}")
        x = vectors.values
        shape = (self.num_codes, x.shape[-1])
        codes = self.param("codebook", nn.initializers.normal(1.0), shape, jnp.float32)
        precision = jax.lax.Precision.HIGHEST
        logits = nn.Dense(self.num_codes, precision=precision, name="logits")(x)
        noisy = logits
        if train and not self.is_initializing():
            keys = self._row_keys(rng, x.shape[0], "samples in training")
            noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:], x.dtype))(keys)
            noisy = logits + noise
        indices = min_and_argmin(-noisy)[1]
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
        return values, indices, {"kl": kl}

    def lookup(self, indices: Int[Array, "*batch"]) -> Float[Array, "*batch channel"]:
        """Returns the codes of indices; see `Quantizer.lookup`."""
        return lookup_codes(self.get_variable("params", "codebook"), indices)

    def _num_channels(self) -> int | None:
        initialized = self.has_variable("params", "codebook")
        return self.get_variable("params", "codebook").shape[-1] if initialized else None
