"""Flows of vectors by name."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal

import vaeflow as vf

FLOWS: dict[str, Callable[..., Any]] = {
    "planar": vf.flows.PlanarFlow,
    "radial": vf.flows.RadialFlow,
    "sylvester": vf.flows.SylvesterFlow,
    "nice": vf.flows.NICE,
    "real-nvp": vf.flows.RealNVP,
    "maf": vf.flows.MaskedAutoregressiveFlow,
    "iaf": vf.flows.InverseAutoregressiveFlow,
    "spline-coupling": vf.flows.NeuralSplineFlow,
    "spline-autoregressive": functools.partial(vf.flows.NeuralSplineFlow, autoregressive=True),
    "block-autoregressive": vf.flows.BlockAutoregressiveFlow,
    "gaussianization": vf.flows.GaussianizationFlow,
    "residual": vf.flows.ResidualFlow,
    "continuous": lambda shape, steps, width: vf.flows.ContinuousFlow(
        shape, num_steps=steps, hidden_sizes=(width, width)
    ),
}
"""Makes each flow from a shape, `steps` and, where its networks have one, `width`."""

FlowName = Literal[tuple(FLOWS)]


@dataclasses.dataclass(frozen=True)
class FlowConfig:
    """Which flow."""

    flow: FlowName = "spline-autoregressive"
    """Its kind."""
    steps: int = 4
    """Number of steps K, of differential equations for continuous; even numbers treat both axes
    alike where a step exchanges them."""
    width: int = 64
    """Hidden units of the networks, for each entry in block-autoregressive; planar, radial,
    sylvester and gaussianization have none."""

    def __post_init__(self) -> None:
        """Refuses values out of range.

        Raises:
          ValueError: Naming the field, the value given and what is allowed.
        """
        for name in ("steps", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be at least 1, got {getattr(self, name)}")


def build(config: FlowConfig, shape: tuple[int]) -> vf.models.FlowModel:
    """Builds a density model of vectors."""
    make = FLOWS[config.flow]
    options = {"width": config.width} if "width" in inspect.signature(make).parameters else {}
    return vf.models.FlowModel(make(shape, steps=config.steps, **options))
