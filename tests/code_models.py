"""Auto-encoders with codes at a tiny size, one for each quantizer and number of levels."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from vaeflow import decoders, encoders, models, nn, quantizers

SHAPE = (7, 6, 1)
IMAGES = np.random.RandomState(0).randint(0, 256, (8, *SHAPE)).astype(np.uint8)
CHANNELS = 4


def average(codes: int = 5) -> quantizers.VectorQuantizer:
    return quantizers.VectorQuantizer(codes)


QUANTIZERS = {
    "average": average,
    "learned": lambda: quantizers.VectorQuantizer(5, average=None),
    "rotated": lambda: quantizers.VectorQuantizer(5, gradient=quantizers.rotation_trick),
    "residual": lambda: quantizers.ResidualQuantizer(3, num_stages=2),
    "grouped": lambda: quantizers.GroupedQuantizer(average(3), num_groups=2),
    "finite scalar": lambda: quantizers.FiniteScalarQuantizer((3, 2, 2, 2)),
    "lookup-free": lambda: quantizers.LookupFreeQuantizer(CHANNELS),
    "gumbel": lambda: quantizers.GumbelQuantizer(5),
}


def coder(channels, features) -> encoders.MapEncoder:
    return encoders.MapEncoder(channels, features=features, num_blocks=1)


def decoder(channels) -> decoders.Decoder:
    network = decoders.MapDecoder(channels, num_blocks=1)
    return decoders.Decoder(
        network, decoders.DiscretizedLogisticMixtureLikelihood(), SHAPE, latent_ndims=3
    )


def vqvae(quantizer=None) -> models.VQVAE:
    """One map of 4x3 codes."""
    quantizer = average() if quantizer is None else quantizer
    return models.VQVAE(coder((6,), CHANNELS), quantizer, decoder((6,)), models.Discretizer())


def vqvae2(levels: int) -> models.VQVAE2:
    """Maps of 4x3 codes, 2x2, 1x1 and so on, with 4, 3, 2 codes and so on."""
    expanders = [decoders.MapDecoder((5,), num_blocks=1) for _ in range(levels - 1)]
    return models.VQVAE2(
        tuple(coder((6,), CHANNELS if level == levels - 1 else 6) for level in range(levels)),
        tuple(expanders),
        tuple(average(5 - level) for level in reversed(range(1, levels + 1))),
        decoder((6,)),
        models.Discretizer(),
        CHANNELS,
    )


SLOW = {"rotated", "residual", "grouped", "finite scalar", "gumbel", "1 levels", "3 levels"}
"""Whose tests are left to the slow ones: quantizers have laws of their own, two levels stay."""
CODERS = {name: vqvae(make()) for name, make in QUANTIZERS.items()} | {
    f"{levels} levels": vqvae2(levels) for levels in (1, 2, 3)
}


def every_coder(names=CODERS):
    """Parametrizes a test by the name of an auto-encoder."""
    marks = {True: pytest.mark.slow, False: ()}
    cases = [pytest.param(name, marks=marks[name in SLOW]) for name in names]
    return pytest.mark.parametrize("name", cases)


def prior(shape, codes, num_classes=None, above=None) -> models.CodePrior:
    given = (
        None
        if above is None
        else nn.UpsampledConditioner(shape, num_codes=above, channels=3, num_blocks=1)
    )
    network = nn.GatedPixelCNN(shape, num_codes=codes, channels=4, num_blocks=1)
    return models.CodePrior(network, num_classes=num_classes, above=given)


def code_model(levels: int, num_classes: int | None = None) -> models.CodeModel:
    if levels == 1:
        return models.CodeModel(vqvae(), (prior((4, 3), 5, num_classes),))
    return models.CodeModel(
        vqvae2(2), (prior((2, 2), 3, num_classes), prior((4, 3), 4, num_classes, above=3))
    )


def waved(parameters):
    """Moves every parameter: at first many are zero, and priors are the same for all contexts."""
    return jax.tree.map(
        lambda leaf: leaf + np.float32(1.5 * np.sin(np.arange(leaf.size))).reshape(leaf.shape),
        parameters,
    )
