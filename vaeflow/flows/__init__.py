"""Flows: Flax modules that own parameters and return bijectors, forward from noise to data."""

from vaeflow.flows.autoregressive import (
    InverseAutoregressive,
    MaskedAutoregressive,
    MaskedAutoregressiveStep,
)
from vaeflow.flows.block_autoregressive import BlockAutoregressive, BlockAutoregressiveStep
from vaeflow.flows.bounded import Bounded
from vaeflow.flows.continuous import Continuous
from vaeflow.flows.gaussianization import Gaussianization, GaussianizationStep
from vaeflow.flows.glow import Glow, GlowStep
from vaeflow.flows.neural_spline import NeuralSpline, NeuralSplineStep
from vaeflow.flows.nice import NICE, NICEStep
from vaeflow.flows.planar import Planar, PlanarStep
from vaeflow.flows.radial import Radial, RadialStep
from vaeflow.flows.real_nvp import RealNVP, RealNVPStep
from vaeflow.flows.residual import Residual, ResidualStep
from vaeflow.flows.stack import FlowStep, Stack
from vaeflow.flows.standardized import Standardized
from vaeflow.flows.sylvester import Sylvester, SylvesterStep
from vaeflow.flows.sylvester_basis import (
    HouseholderBasis,
    IdentityBasis,
    OrthogonalBasis,
    SylvesterBasis,
)

__all__ = [
    "NICE",
    "BlockAutoregressive",
    "BlockAutoregressiveStep",
    "Bounded",
    "Continuous",
    "FlowStep",
    "Gaussianization",
    "GaussianizationStep",
    "Glow",
    "GlowStep",
    "HouseholderBasis",
    "IdentityBasis",
    "InverseAutoregressive",
    "MaskedAutoregressive",
    "MaskedAutoregressiveStep",
    "NICEStep",
    "NeuralSpline",
    "NeuralSplineStep",
    "OrthogonalBasis",
    "Planar",
    "PlanarStep",
    "Radial",
    "RadialStep",
    "RealNVP",
    "RealNVPStep",
    "Residual",
    "ResidualStep",
    "Stack",
    "Standardized",
    "Sylvester",
    "SylvesterBasis",
    "SylvesterStep",
]
