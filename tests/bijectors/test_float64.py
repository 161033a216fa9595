"""Bijectors in float64, in a process of its own, where the type is switched on."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

from tests import registry

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("which", ["exact", pytest.param("all", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_maps_are_as_exact_as_float64(which: str) -> None:
    """Round trips and log-determinants, to 1e-9 but for solutions of differential equations."""
    checked = _count_of_sound(which, "classes")
    classes = len({entry.public for entry in registry.BIJECTORS})
    assert checked == classes if which == "all" else 20 <= checked < classes


@pytest.mark.parametrize("which", ["flows", "models"])
@pytest.mark.slow
def test_types_follow_one_policy(which: str) -> None:
    """Parameters are float32; densities of float64 agree to 1e-10; every model takes both."""
    assert _count_of_sound(which, which) >= 20


def _count_of_sound(which: str, kind: str) -> int:
    """Runs the checks in a process of its own, and returns how many of a kind had no failure."""
    command = [sys.executable, "-m", "tests.float64", which]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    last = re.fullmatch(rf"(\d+) {kind}, 0 failures", ended.stdout.splitlines()[-1])
    return int(last[1])
