"""Distributions that complement those of distrax; none creates parameters.

Log-densities are in nats and float32 or wider.
"""

import distrax

from vaeflow._util import arrays
from vaeflow.distributions import toy
from vaeflow.distributions.bernoulli import Bernoulli, ContinuousBernoulli
from vaeflow.distributions.code_maps import CodeMaps
from vaeflow.distributions.concrete import Concrete
from vaeflow.distributions.discretized import DiscretizedLogisticMixture, PixelCategorical
from vaeflow.distributions.gaussian import FullGaussian, standard_normal
from vaeflow.distributions.grouped import Grouped
from vaeflow.distributions.hierarchical import HierarchicalPrior
from vaeflow.distributions.mixture import Mixture
from vaeflow.distributions.resampled import Resampled
from vaeflow.distributions.transformed import Transformed
from vaeflow.distributions.uniform import UniformBox

arrays.name_in_tables(distrax.Distribution)

__all__ = [
    "Bernoulli",
    "CodeMaps",
    "Concrete",
    "ContinuousBernoulli",
    "DiscretizedLogisticMixture",
    "FullGaussian",
    "Grouped",
    "HierarchicalPrior",
    "Mixture",
    "PixelCategorical",
    "Resampled",
    "Transformed",
    "UniformBox",
    "standard_normal",
    "toy",
]
