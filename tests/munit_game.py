"""A MUNIT and its discriminators at a tiny size: grey images of odd height, and coloured ones."""

from __future__ import annotations

import functools

import flax.linen as nn
import numpy as np

from tests.variables import drawn_variables
from vaeflow import decoders, encoders, models
from vaeflow.nn import MultiScaleDiscriminator

SHAPES = {"a": (9, 8, 1), "b": (9, 8, 3)}
STYLES = {"a": 2, "b": 3}
ROWS = 3


def images(shape: tuple[int, int, int], rows: int = ROWS, seed: int = 0) -> np.ndarray:
    """Noise."""
    return np.random.RandomState(seed).randint(0, 256, (rows, *shape)).astype(np.uint8)


IMAGES = {domain: images(shape) for domain, shape in SHAPES.items()}
BATCH = {domain: {"image": of_domain} for domain, of_domain in IMAGES.items()}


def coder(shape: tuple[int, int, int], posterior: nn.Module) -> models.ContentStyleCoder:
    return models.ContentStyleCoder(
        content=encoders.ContentEncoder((3, 4), num_blocks=1),
        style=encoders.Encoder(encoders.StyleEncoder((3, 4)), posterior),
        decoder=decoders.AdaINDecoder((4, 3), num_blocks=1, hidden_sizes=(5,)),
        image_shape=shape,
    )


def game(
    posterior: type[nn.Module] = encoders.PointMassPosterior, spectral: bool = False
) -> models.MUNITGame:
    """Players of their own for each call."""
    coders = {domain: coder(SHAPES[domain], posterior(STYLES[domain])) for domain in SHAPES}
    judges = {
        domain: MultiScaleDiscriminator(num_scales=2, channels=(3, 4), spectral=spectral)
        for domain in SHAPES
    }
    return models.MUNITGame(models.MUNIT(**coders), models.Discriminators(**judges))


GAME = game()


def initialize(posterior: type[nn.Module] = encoders.PointMassPosterior) -> dict:
    """Makes variables of `game(posterior)`."""
    return drawn_variables(game(posterior).init, IMAGES["a"], IMAGES["b"])


variables = functools.cache(initialize)
