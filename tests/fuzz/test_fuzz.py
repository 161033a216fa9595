"""Hostile inputs of every reader end in an error that names the file, or in the right data."""

from __future__ import annotations

import pytest

from tests.fuzz.oracle import problems_of

SHARES = {"npz": 60, "tables": 30, "idx": 40, "pictures": 8, "models": 30, "exports": 8}
SHARES |= {"runs": 20, "codes": 10, "columns": 40, "hugging": 10}
"""Inputs of each source that the default tests make."""

COUNTS = {"npz": 1600, "tables": 800, "idx": 1000, "pictures": 300, "models": 1200, "exports": 500}
COUNTS |= {
    "runs": 600,
    "checkpoints": 40,
    "commands": 200,
    "codes": 300,
    "columns": 1200,
    "hugging": 300,
}
"""The same for the slow tests."""


def test_a_share_of_hostile_inputs_is_refused_or_read_right():
    problems = list(problems_of(**SHARES))
    assert not problems, "\n".join(problems)


@pytest.mark.slow
@pytest.mark.parametrize("source", COUNTS)
def test_all_hostile_inputs_are_refused_or_read_right(source):
    problems = list(problems_of(**{source: COUNTS[source]}))
    assert not problems, "\n".join(problems)
