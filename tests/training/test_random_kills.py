"""Runs of two stages and of two players that are killed over and over lose nothing."""

from __future__ import annotations

import pytest

from tests.training.random_kills import kill_runs


@pytest.mark.slow
def test_killed_runs_end_as_those_left_alone(tmp_path):
    outcome = kill_runs(tmp_path, kills=60, kills_per_run=6, seed=0)
    assert outcome.differences == []
    assert (outcome.kills, outcome.aimed) >= (60, 25)
    assert outcome.hits >= 20
