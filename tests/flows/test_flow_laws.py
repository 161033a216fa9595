"""Every public flow obeys every law."""

from __future__ import annotations

import pytest

from tests import makers
from tests.registry import FLOWS, Entry, laws
from vaeflow import flows
from vaeflow.testing import CHECKS, Case, run_check

AT_INITIALISATION = {
    "glow": flows.Glow((4, 4, 1), num_levels=2, num_steps=2, hidden_features=4),
    "neural-spline": flows.NeuralSplineFlow((3,), num_steps=2, num_bins=3, hidden_sizes=(4,)),
    "planar": flows.PlanarFlow((3,), num_steps=2),
    "real-nvp": flows.RealNVP((3,), num_steps=2, hidden_features=4, num_blocks=1),
    "residual": flows.ResidualFlow((3,), num_steps=2, hidden_sizes=(4,)),
    "sylvester": flows.SylvesterFlow((3,), num_steps=2),
}


@pytest.mark.parametrize(("entry", "check"), laws(FLOWS, CHECKS, structural=set()))
def test_law(entry: Entry, check: str) -> None:
    """The flow's bijector passes the check, with noise on every parameter.

    The bijectors that flows are made of pass the structural checks already.
    """
    run_check(check, entry.case)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("planar", "real-nvp") else [pytest.mark.slow])
        for name in AT_INITIALISATION
    ],
)
def test_law_at_initialisation(name: str) -> None:
    """Values and gradients are sound where training begins, with layers that are zero."""
    module = AT_INITIALISATION[name]
    case = Case(makers.flow(module, noise=0.0), module.noise_shape)
    for check in ("round trip", "log-det", "log-det symmetry", "edges", "finite differences"):
        run_check(check, case)
