"""Flows, bases and distributions where float64 is on, in a process of their own."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flows", "bases", "distributions"])
def test_laws_in_float64_and_of_float32_beside_it(kind):
    command = [sys.executable, "-m", "tests.properties.float64", kind]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.fullmatch(r"\d{2,} cases, 0 problems", ended.stdout.splitlines()[-1])
