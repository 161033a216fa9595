"""vaeflow's side of the comparison of auto-encoders with codes."""

from __future__ import annotations

import functools
from typing import Any

import jax

import vaeflow as vf
from benchmarks.vae_ours import Ours
from benchmarks.vae_size import SHAPE
from benchmarks.vq_size import COMMITMENT, DECAY, RESTART_BELOW, VqStepSize


def make(**size: Any) -> Ours:
    """Makes the side; nothing is computed yet but that JAX finds its device."""
    jax.devices()
    given = VqStepSize(**size)
    return Ours(given, build(given), functools.partial(vf.losses.vq_vae, commitment=COMMITMENT))


def build(size: VqStepSize) -> vf.models.VQVAE:
    """Builds the model, which samples binary images again at each step."""
    sizes = {"num_blocks": size.blocks, "hidden_features": size.hidden}
    average = vf.quantizers.MovingAverage(DECAY, restart_below=RESTART_BELOW)
    return vf.models.VQVAE(
        vf.encoders.MapEncoder(size.channels, features=size.latents, **sizes),
        vf.quantizers.VectorQuantizer(size.codes, average=average),
        vf.decoders.Decoder(
            vf.decoders.MapDecoder(size.channels[::-1], **sizes),
            vf.decoders.BernoulliLikelihood(),
            SHAPE,
            latent_ndims=3,
        ),
        vf.models.Binarizer(),
    )
