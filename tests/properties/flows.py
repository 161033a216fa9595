"""Every public flow in every unit: the registry, the compiled function and the oracle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.properties import oracle
from tests.properties.cases import ALONE, DIMENSIONS, TOGETHER, Case, Program, Subject, programs
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
    options = {"num_levels": 1, "hidden_features": 4} | options
    return lambda dimension: kind(IMAGES[dimension], **options)


def _vector(
    public: str,
    variant: str = "",
    follows: bool = True,
    options: Any = None,
    largest: int = 200,
    costly: bool = False,
    **fields: Any,
) -> Subject:
    least = 2 if public == "NeuralSplineFlow" and not fields.get("autoregressive") else 1
    dimensions = tuple(min(each, largest) for each in DIMENSIONS if each >= least)
    make = _of_vectors(getattr(flows, public), **fields)
    layouts = TOGETHER if variant == "labels" else (*ALONE, *TOGETHER)
    return Subject(
        public, variant, make, dimensions, layouts, follows, costly=costly, options=options
    )


SUBJECTS = (
    # Its shifts are in the unit of the data: noise on its parameters would be in that of one.
    _vector("NICE", options="own unit", **NEURAL),
    _vector("RealNVP", **COUPLED),
    _vector("RealNVP", "reversible", backward="reversible", **COUPLED),
    _vector("RealNVP", "labels", num_classes=CLASSES, **COUPLED),
    Subject("RealNVP", "image", _of_images(flows.RealNVP, num_steps=1, num_blocks=1), (4, 16, 48)),
    Subject("Glow", "", _of_images(flows.Glow, num_steps=2), (4, 16, 48, 192)),
    Subject(
        "Glow",
        "levels",
        _of_images(flows.Glow, num_levels=2, num_steps=1),
        (16, 48),
        (((2, 3), None), ((0,), None)),
    ),
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
    # A sample takes as many passes as all searches do, one search after another.
    _vector("BlockAutoregressiveFlow", largest=40, num_steps=2, hidden_sizes=(3,)),
    _vector("ResidualFlow", costly=True, **NEURAL),
    _vector("PlanarFlow", follows=False, num_steps=2),
    _vector("PlanarFlow", "leaky", follows=False, num_steps=2, negative_slope=0.1),
    _vector("RadialFlow", follows=False, num_steps=2),
    _vector("SylvesterFlow", follows=False, num_steps=2),
    _vector(
        "SylvesterFlow", "orthogonal", follows=False, num_steps=2, basis=flows.OrthogonalBasis(1)
    ),
    _vector("SylvesterFlow", "identity", follows=False, num_steps=2, basis=flows.IdentityBasis()),
    _vector("GaussianizationFlow", costly=True, num_steps=2, num_components=3),
    _vector("ContinuousFlow", costly=True, options="solved", hidden_sizes=(4,)),
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
        "TransformedFlow",
        "",
        lambda dimension: flows.TransformedFlow(
            flows.RealNVP((dimension,), **COUPLED),
            bijectors.ElementwiseAffine,
            {"shift": 0.0, "log_scale": -0.2},
        ),
        layouts=(*ALONE, *TOGETHER),
        follows=False,  # the map has a unit of its own
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


PROGRAMS = [program for subject in SUBJECTS for program in programs(subject, count=6, num_cases=14)]


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
    if program.subject.follows:
        rows, x = rows + case.offset, case.spread * x + case.offset
    if program.subject.options == "interval":
        case = case._replace(exponent=-abs(case.exponent))
        rows, x = (1 / (1 + np.exp(-each)) for each in (rows, x))
        x = -x if _outside(program, case) else x
    return {
        "seed": np.uint32(case.seed),
        "rows": oracle.in_unit(rows, case, program.dtype),
        "row_context": _context(program, random, ROWS),
        "x": oracle.in_unit(x, case, program.dtype),
        "context": _context(program, random, *(program.context or ())),
    }


def _outside(program: Program, case: Case) -> bool:
    """Whether the values of a case are outside the range of the flow."""
    return program.subject.options == "interval" and case.spread >= oracle.FAR


def compiled(program: Program) -> Any:
    """Returns the function of a program: initialisation, densities, gradients, samples."""
    model = FlowModel(program.subject.make(program.dimension))

    def function(seed, rows, row_context, x, context) -> oracle.Results:
        keys = jax.random.split(jax.random.key(seed), 3)
        variables = model.init(keys[0], rows, context=row_context)
        initial = jax.tree.leaves(variables["params"])
        variables = oracle.as_wide(variables, program.dtype)
        params = variables["params"]
        if program.subject.options != "own unit":
            params = oracle.perturbed(params, keys[1], IN_UNIT)

        def distribution(params):
            return model.apply(variables | {"params": params}, context=context)

        def total(params, x):
            log_prob = distribution(params).log_prob(x)
            return jnp.sum(jnp.where(jnp.isfinite(log_prob), log_prob, 0)), log_prob

        gradient = jax.grad(total, argnums=(0, 1), has_aux=True)
        gradients, log_prob = gradient(params, x)
        density = distribution(params)
        samples, of_samples = density.sample_and_log_prob(seed=keys[2], sample_shape=oracle.SAMPLES)
        # A bijector's input has all batch axes, a distribution's value needn't.
        event = x.shape[len(program.batch) :]
        noise = density.bijector.inverse(jnp.broadcast_to(x, (*program.result, *event)))
        return {
            "parameters": initial,
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
        samples=((*of_samples, *event), wide),
        density=(of_samples, wide),
    )
    types = {str(leaf.dtype) for leaf in results["parameters"]}
    if types != {"float32"}:
        yield f"parameters are of types {types}"
    if _outside(program, case):
        if not np.all(np.isneginf(results["log_prob"])):
            yield f"log_prob outside the range is {results['log_prob'].ravel()[:4]}"
        return
    largest = np.abs(np.asarray(given["x"], np.float64)).max(initial=0)
    overflows = not program.subject.follows and largest > oracle.OVERFLOW
    yield from oracle.below("log_prob", results["log_prob"], lowest=overflows)
    if not overflows:
        yield from oracle.finite_gradients(results, case)
    if not overflows and case.spread < oracle.FAR:
        yield from round_trip(program, given, results)
    yield from oracle.agreement(program, results)
    if program.subject.follows and program.context is None:
        for name in ("log_prob", "density"):
            yield from oracle.follows_unit(name, results[name], one[name], program, case)
        yield from oracle.in_its_unit("samples", results["samples"], one["samples"], case)
        if case.spread < oracle.FAR:
            # Parameters of the later steps aren't in the unit of the data.
            found, before = ({"value": each["gradients"][1]} for each in (results, one))
            yield from oracle.gradients_follow_unit(found, before, case, ("value",))


def round_trip(program: Program, given: oracle.Arguments, results: oracle.Results) -> Iterator[str]:
    """Yields a value that comes back elsewhere, by more than rounding of its noise explains."""
    x, back = (np.asarray(each, np.float64) for each in (given["x"], results["back"]))
    spread = np.abs(back - back[:1]).sum(0)
    # The unit of the flow is that of the data, or else one.
    size = np.abs(x).max(initial=0 if program.subject.follows else 1)
    error = np.abs(back[0] - x)
    if not np.all(error <= 1e-3 * oracle.finer(program) * size + 100 * spread):
        worst = np.argmax(np.where(np.isnan(error), np.inf, error))
        x, spread = (np.broadcast_to(each, error.shape).ravel() for each in (x, spread))
        found, slack = back[0].ravel()[worst], spread[worst]
        yield f"{x[worst]} of {size} comes back as {found} (rounding: {slack})"


def problems(program: Program) -> list[str]:
    """Lists how a program violates the laws."""
    return oracle.problems_of(program, compiled(program), arguments, check)
