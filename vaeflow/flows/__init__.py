"""Flows: Flax modules that own parameters and return bijectors, forward from noise to data."""

from vaeflow.flows.autoregressive import (
    InverseAutoregressive,
    MaskedAutoregressive,
    MaskedAutoregressiveStep,
)
from vaeflow.flows.bounded import Bounded
from vaeflow.flows.glow import Glow, GlowStep
from vaeflow.flows.neural_spline import NeuralSpline, NeuralSplineStep
from vaeflow.flows.real_nvp import RealNVP, RealNVPStep
from vaeflow.flows.stack import FlowStep, Stack
from vaeflow.flows.standardized import Standardized

__all__ = [
    "Bounded",
    "FlowStep",
    "Glow",
    "GlowStep",
    "InverseAutoregressive",
    "MaskedAutoregressive",
    "MaskedAutoregressiveStep",
    "NeuralSpline",
    "NeuralSplineStep",
    "RealNVP",
    "RealNVPStep",
    "Stack",
    "Standardized",
]
