"""Distributions that distrax lacks, or has otherwise; none owns parameters."""

from vaeflow.distributions.bernoulli import Bernoulli
from vaeflow.distributions.code_maps import CodeMaps, truncated_logits
from vaeflow.distributions.concrete import Concrete
from vaeflow.distributions.continuous_bernoulli import ContinuousBernoulli
from vaeflow.distributions.energies import (
    bulging_wave_energy,
    forked_wave_energy,
    ring_energy,
    wave_energy,
)
from vaeflow.distributions.entries import groups_of, per_dim_kl, per_dim_log_prob
from vaeflow.distributions.gaussian import FullGaussian
from vaeflow.distributions.grouped import Grouped
from vaeflow.distributions.histogram import Histogram
from vaeflow.distributions.levels import DiscretizedLogisticMixture, PixelCategorical
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
from vaeflow.distributions.product import product_of_normals
from vaeflow.distributions.resampled import Resampled
from vaeflow.distributions.rows import sample_per_example
from vaeflow.distributions.top_down import HierarchicalPrior
from vaeflow.distributions.transformed import Transformed
from vaeflow.distributions.uniform import UniformBox

__all__ = [
    "Bernoulli",
    "CodeMaps",
    "Concrete",
    "ContinuousBernoulli",
    "DiscretizedLogisticMixture",
    "FullGaussian",
    "Grouped",
    "HierarchicalPrior",
    "Histogram",
    "Mixture",
    "PixelCategorical",
    "Resampled",
    "Transformed",
    "UniformBox",
    "bulging_wave_energy",
    "checkerboard",
    "eight_gaussians",
    "forked_wave_energy",
    "groups_of",
    "image_density",
    "per_dim_kl",
    "per_dim_log_prob",
    "pinwheel",
    "product_of_normals",
    "ring_energy",
    "sample_per_example",
    "standard_normal",
    "truncated_logits",
    "two_moons",
    "two_spirals",
    "wave_energy",
]
