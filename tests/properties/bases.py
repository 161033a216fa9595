"""Every public base in every unit."""

from __future__ import annotations

from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np

from tests.properties import densities, oracle
from tests.properties.cases import ALONE, TOGETHER, Case, Program, Subject, programs
from vaeflow import bases

CLASSES = 3
IMAGE = (2, 2, 1)
LAYOUTS = (*ALONE, *TOGETHER)
TEMPERATURES = (1.0, 0.5, 2.0)


def _base(public: str, *, layouts=LAYOUTS, options=None, **fields: Any) -> Subject:
    kind = getattr(bases, public)
    return Subject(
        public, "", lambda dimension: kind((dimension,), **fields), layouts=layouts, options=options
    )


SUBJECTS = (
    # Their unit is the temperature; a value outside the box has no density.
    _base("BoxBase", options="bounded", low=-1.0, high=1.0),
    _base("ResampledBase", hidden_sizes=(4,), truncation=5, log_points=6, options="temperature"),
    _base("DiagonalGaussianBase"),
    _base("CorrelatedGaussianBase"),
    _base("GaussianMixtureBase", num_components=3),
    _base("LabelledGaussianBase", num_classes=CLASSES, layouts=TOGETHER),
    Subject(
        "VampPrior",
        "",
        lambda dimension: bases.VampPrior(num_components=3, image_shape=IMAGE),
        layouts=ALONE,
    ),
)

PROGRAMS = [
    program for subject in SUBJECTS for program in programs(subject, count=13, num_cases=14)
]


def arguments(program: Program, case: Case) -> oracle.Arguments:
    """Draws what the compiled function takes."""
    random = np.random.default_rng(case.seed)
    shape = (*program.batch, program.dimension)
    scaled, wide = program.subject.options is not None, oracle.wide(program.dtype)
    number = jnp.dtype(wide).type
    x = case.spread * oracle.draw(random, *shape) + (0 if scaled else case.offset)
    return {
        "seed": np.uint32(case.seed),
        "unit": number(2.0**case.exponent),
        "log_unit": number(case.exponent * np.log(2)),
        "offset": number(case.offset),
        "temperature": number(2.0**case.exponent if scaled else TEMPERATURES[case.seed]),
        "x": oracle.in_unit(x, case, program.dtype),
        "labels": random.integers(0, CLASSES, size=program.context or ()),
    }


def _encoder(dimension: int, unit: Any) -> Any:
    """Posteriors of images, as an encoder makes them, in a unit."""

    def encode(images):
        weights = np.random.default_rng(0).normal(size=(4, dimension)).astype(np.float32)
        mean = jnp.reshape(images, (-1, 4)) @ weights
        return distrax.Independent(distrax.Normal(unit * mean, jnp.full_like(mean, unit)), 1)

    return encode


def compiled(program: Program) -> Any:
    """Returns the function of a program: parameters in the unit, and the density."""
    base = program.subject.make(program.dimension)
    vamp = isinstance(base, bases.VampPrior)

    def function(seed, unit, log_unit, offset, temperature, x, labels) -> oracle.Results:
        keys = jax.random.split(jax.random.key(seed), 3)
        keywords = {"context": labels if base.needs_labels else None}
        if vamp:
            keywords["encoder"] = _encoder(program.dimension, unit)
        else:
            keywords |= {"temperature": temperature, "batch_shape": program.context or ()}
        variables = oracle.as_wide(base.init(keys[0], **keywords), program.dtype)
        params = oracle.perturbed(variables["params"], keys[1]) if variables else {}
        if "mean" in params:
            params["mean"] = unit * (params["mean"] + offset)
            params["log_scale"] = params["log_scale"] + log_unit

        def build(params):
            return base.apply({"params": params}, **keywords)

        return densities.results_of(build, params, x, keys[2])

    return function


def problems(program: Program) -> list[str]:
    """Lists how a program violates the laws."""
    return oracle.problems_of(program, compiled(program), arguments, densities.check)
