"""Distributions that distrax lacks, or has otherwise; none owns parameters."""

from vaeflow.distributions.energies import (
    bulging_wave_energy,
    forked_wave_energy,
    ring_energy,
    wave_energy,
)
from vaeflow.distributions.gaussian import FullGaussian
from vaeflow.distributions.histogram import Histogram
from vaeflow.distributions.mixture import Mixture
from vaeflow.distributions.noise import standard_normal
from vaeflow.distributions.plane import (
    checkerboard,
    eight_gaussians,
    image_density,
    pinwheel,
    two_moons,
    two_spirals,
)
from vaeflow.distributions.resampled import Resampled
from vaeflow.distributions.transformed import Transformed
from vaeflow.distributions.uniform import UniformBox

__all__ = [
    "FullGaussian",
    "Histogram",
    "Mixture",
    "Resampled",
    "Transformed",
    "UniformBox",
    "bulging_wave_energy",
    "checkerboard",
    "eight_gaussians",
    "forked_wave_energy",
    "image_density",
    "pinwheel",
    "ring_energy",
    "standard_normal",
    "two_moons",
    "two_spirals",
    "wave_energy",
]
