"""Discriminators: of latents (FactorVAE) and of image patches at several scales (MUNIT)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.nn.conditioners import MLP
from vaeflow.nn.convolution import Conv
from vaeflow.nn.lipschitz import SpectralConv


class LatentDiscriminator(nn.Module):
    """A multilayer perceptron from latents to the logit of the first of two distributions.

    Trained by cross entropy on as many samples of p as of q, its logit estimates log p(z) / q(z).
    Initially it is zero.

    Source: Kim & Mnih 2018, "Disentangling by factorising", appendix A (six layers of 1000 units).

    Attributes:
      hidden_sizes: Sizes of the hidden layers, each followed by a leaky ReLU of slope 0.2.
      dtype: Type to compute in; the logits are float32 or wider.
    """

    hidden_sizes: Sequence[int] = (1000,) * 6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, latents: Float[Array, "batch latent"]) -> Float[Array, " batch"]:
        """Computes one logit for each vector."""
        return MLP(1, self.hidden_sizes, leaky_relu, self.dtype)(latents)[..., 0]


def leaky_relu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Computes max(x, 0.2 x)."""
    return jax.nn.leaky_relu(x, 0.2)


class PatchDiscriminator(nn.Module):
    """A PatchGAN: 4x4 convolutions of stride 2, then a 1x1 convolution to a score per patch.

    Source: Isola, Zhu, Zhou & Efros 2017, "Image-to-image translation with conditional adversarial
    networks", section 3.2.2; the layers are those of Huang et al. 2018, appendix B.

    Attributes:
      channels: Channels of each convolution; each halves height and width, rounded up.
      spectral: Whether every kernel is divided by its spectral norm.
      dtype: Type to compute in; the scores are float32 or wider.
    """

    channels: Sequence[int] = (64, 128, 256, 512)
    spectral: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, values: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch map_height map_width"]:
        """Computes the score of each patch of images with values from -1 to 1."""
        layer = SpectralConv if self.spectral else Conv
        options = {
            "padding": "REFLECT",
            "dtype": self.dtype,
            "kernel_init": nn.initializers.normal(0.02),
        }
        x = values.astype(self.dtype)
        for channels in self.channels:
            x = leaky_relu(layer(channels, (4, 4), (2, 2), **options)(x))
        x = layer(1, (1, 1), **options)(x)[..., 0]
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class MultiScaleDiscriminator(nn.Module):
    """A patch discriminator for each scale of an image pyramid.

    Each scale halves the one before by 3x3 average pooling of stride 2, without the padding.

    Source: Wang, Liu, Zhu, Tao, Kautz & Catanzaro 2018, "High-resolution image synthesis and
    semantic manipulation with conditional GANs", section 3.2; Huang et al. 2018, section 5.1.

    Attributes:
      num_scales: Number of discriminators.
      channels: As for `PatchDiscriminator`.
      spectral: As for `PatchDiscriminator`.
      dtype: As for `PatchDiscriminator`.
    """

    num_scales: int = 3
    channels: Sequence[int] = (64, 128, 256, 512)
    spectral: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, values: Float[Array, "batch height width channel"]
    ) -> tuple[Float[Array, "batch map_height map_width"], ...]:
        """Computes the scores of patches at each scale, the finest first."""
        scores = []
        for scale in range(self.num_scales):
            if scale:
                values = nn.avg_pool(
                    values, (3, 3), (2, 2), ((1, 1), (1, 1)), count_include_pad=False
                )
            discriminator = PatchDiscriminator(self.channels, self.spectral, self.dtype)
            scores.append(discriminator(values))
        return tuple(scores)
