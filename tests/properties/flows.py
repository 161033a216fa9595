"""Every public flow in every unit: the registry, the compiled function and the oracle."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.properties import oracle
from tests.properties.cases import ALONE, TOGETHER, Case, Program, Subject, programs
from vaeflow import bijectors, flows
from vaeflow.models import FlowModel

ROWS = 16
"""Number of rows of the batch that a flow is initialised on."""

FEATURES = 2
"""Number of features of a context."""

CLASSES = 3
"""Number of classes where the context is a label."""

IN_UNIT = ("shift", "centres")
"""Parameters in the unit of the data."""

NEURAL = {"num_steps": 2, "hidden_sizes": (4,)}
COUPLED = {"num_steps": 2, "hidden_features": 4, "num_blocks": 1}
IMAGES = {4: (2, 2, 1), 16: (4, 4, 1), 48: (4, 4, 3), 192: (8, 8, 3)}


def _of_vectors(kind: Any, **options: Any) -> Any:
    return lambda dimension: kind((dimension,), **options)


def _of_images(kind: Any, **options: Any) -> Any:
    return lambda dimension: kind(IMAGES[dimension], num_levels=1, hidden_features=4, **options)


def _vector(public: str, variant: str = "", follows: bool = True, **options: Any) -> Subject:
    least = 2 if public == "NeuralSplineFlow" and not options.get("autoregressive") else 1
    dimensions = tuple(each for each in (1, 2, 3, 7, 20, 200) if each >= least)
    make = _of_vectors(getattr(flows, public), **options)
    return Subject(public, variant, make, dimensions, (*ALONE, *TOGETHER), follows)


SUBJECTS = (
    _vector("NICE", **NEURAL),
    _vector("RealNVP", **COUPLED),
    _vector("RealNVP", "reversible", backward="reversible", **COUPLED),
    _vector("RealNVP", "labels", num_classes=CLASSES, **COUPLED),
    Subject("RealNVP", "image", _of_images(flows.RealNVP, num_steps=1, num_blocks=1), (4, 16, 48)),
    Subject("Glow", "", _of_images(flows.Glow, num_steps=2), (4, 16, 48, 192)),
    Subject("Glow", "plu", _of_images(flows.Glow, num_steps=1, plu=True), (4, 16)),
    _vector("NeuralSplineFlow", num_bins=3, **NEURAL),
    _vector("NeuralSplineFlow", "autoregressive", autoregressive=True, num_bins=3, **NEURAL),
    _vector("MaskedAutoregressiveFlow", **NEURAL),
    _vector(
        "MaskedAutoregressiveFlow",
        "bernstein",
        transformer=bijectors.BernsteinTransformer(degree=4),
        **NEURAL,
    ),
    _vector("InverseAutoregressiveFlow", follows=False, **NEURAL),
    _vector("BlockAutoregressiveFlow", num_steps=2, hidden_sizes=(3,)),
    _vector("ResidualFlow", **NEURAL),
    _vector("PlanarFlow", follows=False, num_steps=2),
    _vector("PlanarFlow", "leaky", follows=False, num_steps=2, negative_slope=0.1),
    _vector("RadialFlow", follows=False, num_steps=2),
    _vector("SylvesterFlow", follows=False, num_steps=2),
    _vector(
        "SylvesterFlow", "orthogonal", follows=False, num_steps=2, basis=flows.OrthogonalBasis(1)
    ),
    _vector(
        "SylvesterFlow", "identity", follows=False, num_steps=2, basis=flows.IdentityBasis()
    ),
    _vector("GaussianizationFlow", num_steps=2, num_components=3),
    _vector("ContinuousFlow", hidden_sizes=(4,)),
    Subject(
        "StandardizedFlow",
        "",
        lambda dimension: flows.StandardizedFlow(flows.NICE((dimension,), **NEURAL)),
        layouts=(*ALONE, *TOGETHER),
    ),
    Subject(
        "StandardizedFlow",
        "fixed",
        lambda dimension: flows.StandardizedFlow(
            flows.RealNVP((dimension,), **COUPLED), learned=False
        ),
    ),
    Subject(
        "BoundedFlow",
        "",
        lambda dimension: flows.BoundedFlow(flows.NICE((dimension,), **NEURAL), 0.0, 1.0),
        layouts=(*ALONE, *TOGETHER),
        follows=False,
        options="interval",
    ),
)


PROGRAMS = [
    program for subject in SUBJECTS for program in programs(subject, count=7, num_cases=14)
]


def _context(program: Program, random: np.random.Generator, *batch: int) -> np.ndarray | None:
    if program.context is None:
        return None
    if program.subject.variant == "labels":
        return random.integers(0, CLASSES, size=batch)
    return oracle.draw(random, *batch, FEATURES).astype(program.dtype)


def arguments(program: Program, case: Case) -> oracle.Arguments:
    """Draws what the compiled function takes."""
    module = program.subject.make(program.dimension)
    random = np.random.default_rng(case.seed)
    rows = oracle.draw(random, ROWS, *module.event_shape)
    x = oracle.draw(random, *program.batch, *module.event_shape)
    rows, x = rows + case.offset, case.spread * x + case.offset
    if program.subject.options == "interval":
        case = case._replace(exponent=-abs(case.exponent))
        rows, x = (1 / (1 + np.exp(-each / (1 + case.offset))) for each in (rows, x))
    return {
        "keys": jax.random.split(jax.random.key(case.seed), 3),
        "rows": oracle.in_unit(rows, case, program.dtype),
        "row_context": _context(program, random, ROWS),
        "x": oracle.in_unit(x, case, program.dtype),
        "context": _context(program, random, *(program.context or ())),
    }


def compiled(program: Program) -> Any:
    """Returns the function of a program: initialisation, densities, gradients, samples."""
    model = FlowModel(program.subject.make(program.dimension))

    def function(keys, rows, row_context, x, context) -> oracle.Results:
        variables = model.init(keys[0], rows, context=row_context)
        params = oracle.perturbed(variables["params"], keys[1], IN_UNIT)

        def distribution(params):
            return model.apply(variables | {"params": params}, context=context)

        def total(params, x):
            log_prob = distribution(params).log_prob(x)
            return jnp.sum(jnp.where(jnp.isfinite(log_prob), log_prob, 0)), log_prob

        gradient = jax.grad(total, argnums=(0, 1), has_aux=True)
        gradients, log_prob = gradient(params, x)
        density = distribution(params)
        samples, of_samples = density.sample_and_log_prob(
            seed=keys[2], sample_shape=oracle.SAMPLES
        )
        # A bijector's input has all batch axes, unlike a distribution's value.
        event = x.shape[len(program.batch) :]
        noise = density.bijector.inverse(jnp.broadcast_to(x, (*program.result, *event)))
        return {
            "parameters": jax.tree.leaves(params)[0],
            "log_prob": log_prob,
            "gradients": gradients,
            "samples": samples,
            "density": of_samples,
            "again": density.log_prob(oracle.nudged(samples)),
            "noise": noise,
            "back": density.bijector.forward(oracle.nudged(noise)),
        }

    return function


def check(
    program: Program,
    case: Case,
    given: oracle.Arguments,
    results: oracle.Results,
    one: oracle.Results,
) -> Iterator[str]:
    """Yields how the results of a case violate the laws of flows."""
    event = given["x"].shape[len(program.batch) :]
    wide = oracle.wide(program.dtype)
    of_samples = (oracle.SAMPLES, *(program.context or ()))
    yield from oracle.shapes_and_types(
        results,
        log_prob=(program.result, wide),
        samples=((*of_samples, *event), jnp.float32),
        density=(of_samples, jnp.float32),
    )
    if results["parameters"].dtype != jnp.float32:
        yield f"parameters are of type {results['parameters'].dtype}"
    largest = np.abs(np.asarray(given["x"], np.float64)).max(initial=0)
    overflows = not program.subject.follows and largest > oracle.OVERFLOW
    yield from oracle.below("log_prob", results["log_prob"], lowest=overflows)
    if not overflows:
        yield from oracle.finite_gradients(results, case)
        yield from round_trip(given, results)
    yield from oracle.agreement(results)
    if program.subject.follows and program.context is None:
        unit = 2.0**case.exponent
        yield from oracle.follows_unit("log_prob", results["log_prob"], one["log_prob"], program, case)
        yield from oracle.follows_unit("density", results["density"], one["density"], program, case)
        samples, before = (np.asarray(each["samples"], np.float64) for each in (results, one))
        if not np.allclose(samples / unit, before, rtol=1e-3, atol=1e-3 * np.abs(before).max(initial=0)):
            yield f"samples are {(samples / unit).ravel()[:4]} units, not {before.ravel()[:4]}"


def round_trip(given: oracle.Arguments, results: oracle.Results) -> Iterator[str]:
    """Yields a value that comes back elsewhere, by more than rounding of its noise explains."""
    x, back = (np.asarray(each, np.float64) for each in (given["x"], results["back"]))
    spread = np.abs(back - back[:1]).sum(0)
    size = np.abs(x).max(initial=0)
    error = np.abs(back[0] - x)
    if not np.all(error <= 1e-3 * size + 100 * spread):
        worst = np.argmax(np.where(np.isnan(error), np.inf, error))
        x, spread = (np.broadcast_to(each, error.shape).ravel() for each in (x, spread))
        yield f"{x[worst]} comes back as {back[0].ravel()[worst]} (rounding: {spread[worst]})"


@functools.cache
def problems(program: Program) -> list[str]:
    """Lists how a program violates the laws."""
    return list(oracle.problems_of(program, compiled(program), arguments, check))
