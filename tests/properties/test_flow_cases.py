"""Every public flow keeps its laws in every unit, shape and type."""

from __future__ import annotations

import inspect

import pytest

from tests.properties import bases, distributions, flows
from vaeflow import flows as public

NAMES = {program.name: program for program in flows.PROGRAMS}


def test_every_public_flow_has_cases():
    here = {subject.public for subject in flows.SUBJECTS}
    # Parts of the others: bases of a Sylvester flow, and a stack is that of every flow of steps.
    elsewhere = {"FlowStep", "StackedFlow"}
    elsewhere |= {name for name in public.__all__ if name.endswith("Basis")}
    classes = {name for name in public.__all__ if inspect.isclass(getattr(public, name))}
    assert here | elsewhere == classes


def test_there_are_four_thousand_cases():
    chosen = [*flows.PROGRAMS, *bases.PROGRAMS, *distributions.PROGRAMS]
    # Numbers are drawn: two cases of a program can be the same, and count once.
    assert sum(len(set(program.cases())) for program in chosen) >= 4000


FIRST = next(name for name in NAMES if name.startswith("NICE 7"))
"""The program of the default tests, which compiles fast."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == FIRST else [pytest.mark.slow]) for name in NAMES],
)
def test_laws_of_flows(name):
    found = flows.problems(NAMES[name])
    assert not found, "\n".join(found)
