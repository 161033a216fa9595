"""Densities of the plane by name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax

import vaeflow as vf
from vaeflow import distributions, metrics

DensityName = Literal[
    "checkerboard", "eight_gaussians", "pinwheel", "two_moons", "two_spirals", "image"
]
DENSITIES: tuple[DensityName, ...] = get_args(DensityName)
KNOWN: tuple[DensityName, ...] = ("checkerboard", "eight_gaussians", "image")
"""Those whose density is known, and not their samples alone."""
FAR = 10.0
"""Half the side of the square over which integrals are taken."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What to fit."""

    density: tuple[DensityName, ...] = DENSITIES
    """Densities to fit, each by a flow of its own."""
    image: str = "embedded:camera"
    """The image whose brightness is the density called image: a file, or embedded:camera for a
    photograph shipped by scikit-image."""


class Target(NamedTuple):
    """A density to fit.

    Attributes:
      draw: From a typed key and a shape to points ``[*shape, 2]``.
      log_prob: From points to nats; None where it isn't known.
      entropy: In nats, where `log_prob` is known.
    """

    draw: Callable[..., jax.Array]
    log_prob: Callable[[jax.Array], jax.Array] | None = None
    entropy: float = math.nan


def known(distribution: distributions.toy.Histogram | distributions.Mixture) -> Target:
    """A target with a density."""
    if isinstance(distribution, distributions.toy.Histogram):
        entropy = float(distribution.entropy())
    else:
        log_p = jax.jit(distribution.log_prob)
        entropy = metrics.expectation(log_p, lambda x: -log_p(x), [-FAR] * 2, [FAR] * 2)

    def draw(key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        return distribution.sample(seed=key, sample_shape=shape)

    return Target(draw, distribution.log_prob, entropy)


def open_target(name: DensityName, image: str) -> Target:
    """Opens a density by its name.

    Raises:
      ValueError: If the image can't be read or is black.
    """
    if name == "image":
        try:
            return known(distributions.toy.image_density(vf.data.read_grey_image(image)))
        except ValueError as error:
            raise ValueError(f"data.image={image!r}: {error}") from error
    return {
        "checkerboard": lambda: known(distributions.toy.checkerboard()),
        "eight_gaussians": lambda: known(distributions.toy.eight_gaussians()),
        "pinwheel": lambda: Target(distributions.toy.pinwheel),
        "two_moons": lambda: Target(distributions.toy.two_moons),
        "two_spirals": lambda: Target(distributions.toy.two_spirals),
    }[name]()
