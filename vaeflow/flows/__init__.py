"""Flows: Flax modules that own parameters and return a bijector, forward from noise to data.

`StackedFlow` and `FlowStep` are the parts of custom flows; a `TransformedFlow` ends a flow with a
bijector of your own.
"""

from vaeflow.flows.autoregressive import (
    BlockAutoregressiveFlow,
    InverseAutoregressiveFlow,
    MaskedAutoregressiveFlow,
)
from vaeflow.flows.base import StackedFlow
from vaeflow.flows.classic import (
    HouseholderBasis,
    IdentityBasis,
    OrthogonalBasis,
    PlanarFlow,
    RadialFlow,
    SylvesterBasis,
    SylvesterFlow,
)
from vaeflow.flows.continuous import ContinuousFlow
from vaeflow.flows.coupling import NICE, RealNVP
from vaeflow.flows.gaussianization import GaussianizationFlow
from vaeflow.flows.glow import Glow
from vaeflow.flows.residual import ResidualFlow
from vaeflow.flows.spline import NeuralSplineFlow
from vaeflow.flows.wrappers import BoundedFlow, StandardizedFlow, TransformedFlow
from vaeflow.typing import FlowStep

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
    "TransformedFlow",
]
