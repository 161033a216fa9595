"""Every public base and distribution keeps its laws in every unit, shape and type."""

from __future__ import annotations

import inspect

import pytest

import vaeflow.bases
import vaeflow.distributions
from tests.properties import bases, distributions

KINDS = {
    program.name: (kind, program) for kind in (bases, distributions) for program in kind.PROGRAMS
}

DEFAULT = ("BoxBase", "DiagonalGaussianBase", "FullGaussian", "UniformBox", "Concrete")
"""Subjects of which the default tests run a program, each of which compiles fast."""


def _first(name):
    programs = ((key, program) for key, (_, program) in KINDS.items())
    return next(key for key, each in programs if each.subject.name == name and 0 not in each.batch)


SHARE = [_first(name) for name in DEFAULT]


def test_every_public_base_and_distribution_has_cases():
    here = {subject.public for subject in bases.SUBJECTS}
    assert here | {"Base"} == set(vaeflow.bases.__all__)
    here = {subject.public for subject in distributions.SUBJECTS}
    public = {
        name
        for name in vaeflow.distributions.__all__
        if inspect.isclass(getattr(vaeflow.distributions, name))
    }
    assert here == public | {"standard_normal", "Histogram"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in SHARE else [pytest.mark.slow]) for name in KINDS],
)
def test_laws_of_densities(name):
    kind, program = KINDS[name]
    found = kind.problems(program)
    assert not found, "\n".join(found)
