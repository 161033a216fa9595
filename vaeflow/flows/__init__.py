"""Flows: Flax modules that own parameters and return bijectors, forward from noise to data."""

from vaeflow.flows.autoregressive import (
    InverseAutoregressiveFlow,
    MaskedAutoregressiveFlow,
    _MaskedAutoregressiveStep,
)
from vaeflow.flows.block_autoregressive import BlockAutoregressiveFlow, _BlockAutoregressiveStep
from vaeflow.flows.bounded import BoundedFlow
from vaeflow.flows.continuous import ContinuousFlow
from vaeflow.flows.gaussianization import GaussianizationFlow, _GaussianizationStep
from vaeflow.flows.glow import Glow, _GlowStep
from vaeflow.flows.neural_spline import NeuralSplineFlow, _NeuralSplineStep
from vaeflow.flows.nice import NICE, _NICEStep
from vaeflow.flows.planar import PlanarFlow, _PlanarStep
from vaeflow.flows.radial import RadialFlow, _RadialStep
from vaeflow.flows.real_nvp import RealNVP, _RealNVPStep
from vaeflow.flows.residual import ResidualFlow, _ResidualStep
from vaeflow.flows.stack import FlowStep, StackedFlow
from vaeflow.flows.standardized import StandardizedFlow
from vaeflow.flows.sylvester import SylvesterFlow, _SylvesterStep
from vaeflow.flows.sylvester_basis import (
    HouseholderBasis,
    IdentityBasis,
    OrthogonalBasis,
    SylvesterBasis,
)

__all__ = [
    "NICE",
    "BlockAutoregressiveFlow",
    "BoundedFlow",
    "ContinuousFlow",
    "FlowStep",
    "GaussianizationFlow",
    "Glow",
    "HouseholderBasis",
    "IdentityBasis",
    "InverseAutoregressiveFlow",
    "MaskedAutoregressiveFlow",
    "NeuralSplineFlow",
    "OrthogonalBasis",
    "PlanarFlow",
    "RadialFlow",
    "RealNVP",
    "ResidualFlow",
    "StackedFlow",
    "StandardizedFlow",
    "SylvesterBasis",
    "SylvesterFlow",
    "_BlockAutoregressiveStep",
    "_GaussianizationStep",
    "_GlowStep",
    "_MaskedAutoregressiveStep",
    "_NICEStep",
    "_NeuralSplineStep",
    "_PlanarStep",
    "_RadialStep",
    "_RealNVPStep",
    "_ResidualStep",
    "_SylvesterStep",
]
