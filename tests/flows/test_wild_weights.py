"""Flows stay finite, and invertible to a stated residual, with noise of 0.1 on every parameter."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from tests import wild_weights
from vaeflow import flows
from vaeflow.flows.base import Flow

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUICK = ("real-nvp",)


def test_every_flow_is_among_them() -> None:
    """Wrappers, which hold a flow, and the stack are left out."""
    found = {type(wild.flow) for wild in wild_weights.FLOWS.values()}
    public = {getattr(flows, name) for name in flows.__all__}
    wrappers = {flows.BoundedFlow, flows.StandardizedFlow, flows.TransformedFlow}
    assert (
        found
        == {kind for kind in public if isinstance(kind, type) and issubclass(kind, Flow)} - wrappers
    )


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
        for name in wild_weights.FLOWS
    ],
)
def test_values_and_densities_stay_finite(name: str) -> None:
    """Where float32 can show it, round trips close, and densities of samples agree."""
    wild = wild_weights.FLOWS[name]
    found = wild_weights.measure(wild.flow)
    assert found.finite
    assert max(found.noise, found.data) <= wild.residual
    assert found.density <= 10 * wild.residual


@pytest.mark.slow
def test_round_trips_close_in_float64() -> None:
    """The maps themselves are inverse to each other where float32 has lost them."""
    command = [sys.executable, "-m", "tests.wild_weights"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
