"""Every public distribution in every unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import distrax
import jax
import jax.numpy as jnp
import numpy as np

from tests.properties import densities, oracle
from tests.properties.cases import ALONE, DIMENSIONS, TOGETHER, Case, Program, Subject, programs
from tests.raster_networks import gated, noisy_variables
from vaeflow import bijectors, distributions
from vaeflow.distributions.gaussian import Normal
from vaeflow.nn import MLP

LAYOUTS = (*ALONE, *TOGETHER)
Shape = tuple[int, ...]
Random = np.random.Generator


class Maker(NamedTuple):
    """How a distribution is made.

    Attributes:
      draw: Draws the parameters, in the unit of one, for batch axes and a number of dimensions:
        those in the unit of the values by the name "unit", the others by "free".
      build: From those parameters, the unit among them, to the distribution.
    """

    draw: Callable[[Random, Shape, int], dict[str, tuple[np.ndarray, ...]]]
    build: Callable[[dict[str, Any]], distrax.Distribution]


def _normals(mean: Any, scale: Any) -> distrax.Independent:
    # Those of distrax compute in the type of their parameters.
    mean, scale = (each.astype(oracle.wide(each.dtype)) for each in (mean, scale))
    return distrax.Independent(Normal(mean, scale), 1)


def _positive(random: Random, *shape: int) -> np.ndarray:
    return np.exp(0.3 * oracle.draw(random, *shape))


def _full(random, batch, dimension):
    noise = oracle.draw(random, *batch, dimension, dimension)
    factor = np.eye(dimension) + 0.3 * np.tril(noise) / np.sqrt(dimension)
    return {"unit": (oracle.draw(random, *batch, dimension), factor), "free": ()}


def _mixture(random, batch, dimension):
    shape = (*batch, 3, dimension)
    return {
        "unit": (oracle.draw(random, *shape), _positive(random, *shape)),
        "free": (oracle.draw(random, *batch, 3),),
    }


def _box(random, batch, dimension):
    low = oracle.draw(random, *batch, dimension)
    return {"unit": (low, low + _positive(random, *batch, dimension)), "free": ()}


def _location_and_scale(random, batch, dimension):
    shape = (*batch, dimension)
    return {"unit": (oracle.draw(random, *shape), _positive(random, *shape)), "free": ()}


def _histogram(random, batch, dimension):
    del dimension
    low = oracle.draw(random, *batch, 2)
    weights = _positive(random, *batch, 3, 2)
    return {"unit": (low, low + _positive(random, *batch, 2)), "free": (weights,)}


def _of_logits(*parameters: int):
    def draw(random, batch, dimension):
        return {"unit": (oracle.draw(random, *batch, dimension, *parameters),), "free": ()}

    return draw


def _logistics(random, batch, dimension):
    shape = (*batch, dimension, 3)
    return {
        "unit": (_positive(random, *shape),),
        "free": (oracle.draw(random, *shape), 0.4 * oracle.draw(random, *shape)),
    }


def _nothing(random, batch, dimension):
    del random, dimension
    return {"unit": (np.ones(batch),), "free": ()}


def _grouped(given):
    (mean, scale), first = given["unit"], 1 + given["unit"][0].shape[-1] // 3
    parts = {
        "second": _normals(mean[..., first:], scale[..., first:]),
        "first": _normals(mean[..., :first], scale[..., :first]),
    }
    return distributions.Grouped(parts)


def _around(scale, above):
    mean = jnp.concatenate([above, 0.5 * above], axis=-1)[..., : scale.shape[-1]]
    return _normals(mean, jnp.broadcast_to(scale, mean.shape).astype(mean.dtype))


def _hierarchical(given):
    (mean, scale), first = given["unit"], (given["unit"][0].shape[-1] + 1) // 2
    below = jax.tree_util.Partial(_around, scale[..., first:])
    top = _normals(mean[..., :first], scale[..., :first])
    return distributions.HierarchicalPrior(top, [below])


def _transformed(given):
    mean, scale = (each.astype(oracle.wide(each.dtype)) for each in given["unit"])
    one = jnp.ones((), mean.dtype)
    noise = distributions.standard_normal(mean.shape[-1:], mean.shape[:-1], one)
    affine = bijectors.ElementwiseAffine(mean, jnp.log(scale))
    return distributions.Transformed(noise, affine)


def _onto_interval(given):
    mean, scale = given["unit"]
    return distributions.Transformed(_normals(mean, scale), bijectors.Sigmoid(-1.0, 1.0))


def _standard(given):
    temperature = given["unit"][0]
    return distributions.standard_normal((given["dimension"],), temperature.shape, given["scalar"])


def _resampled(given):
    dimension, network = given["dimension"], MLP(1, (4,), jnp.tanh, parent=None)
    variables = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, dimension)))
    random = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: 0.3 * random.normal(size=leaf.shape).astype(np.float32), variables
    )
    return distributions.Resampled(
        bijectors.Conditioner(network, variables),
        jnp.float32(0.5),
        dimension,
        5,
        given["unit"][0].shape,
        given["scalar"],
    )


def _code_maps(given):
    network = gated((given["dimension"], 1), 3, channels=4, num_blocks=1)
    (context,) = given["unit"]
    variables = noisy_variables(network, np.zeros((1, 2), np.float32))
    return distributions.CodeMaps(bijectors.Conditioner(network, variables, context, 2))


def _context(random, batch, dimension):
    del dimension
    return {"unit": (oracle.draw(random, *batch, 2),), "free": ()}


def _subject(public, draw, build, variant="", **fields: Any) -> Subject:
    fields = {"layouts": LAYOUTS} | fields
    return Subject(public, variant, lambda dimension: Maker(draw, build), **fields)


SEVERAL = tuple(each for each in DIMENSIONS if each > 1)
LEVELS = tuple((np.arange(4) + 0.5) / 4 - 0.5)

SUBJECTS = (
    _subject("standard_normal", _nothing, _standard),
    _subject("FullGaussian", _full, lambda given: distributions.FullGaussian(*given["unit"])),
    _subject(
        "Mixture",
        _mixture,
        lambda given: distributions.Mixture(given["free"][0], _normals(*given["unit"])),
    ),
    _subject(
        "UniformBox",
        _box,
        lambda given: distributions.UniformBox(*given["unit"]),
        options="bounded",
    ),
    _subject("Grouped", _location_and_scale, _grouped, dimensions=SEVERAL),
    _subject("HierarchicalPrior", _location_and_scale, _hierarchical, dimensions=SEVERAL),
    _subject("Transformed", _location_and_scale, _transformed),
    _subject(
        "Transformed",
        _location_and_scale,
        _onto_interval,
        "sigmoid",
        options="interval",
        follows=False,
    ),
    _subject("Resampled", _nothing, _resampled),
    _subject(
        "Histogram",
        _histogram,
        lambda given: distributions.toy.Histogram(given["free"][0], *given["unit"]),
        dimensions=(2,),
        sampled="float32",
        options="bounded",
    ),
    _subject(
        "ContinuousBernoulli",
        _of_logits(),
        lambda given: distributions.ContinuousBernoulli(given["unit"][0], 1),
        follows=False,
    ),
    _subject(
        "Bernoulli",
        _of_logits(),
        lambda given: distributions.Bernoulli(given["unit"][0], 1),
        follows=False,
        values=(0.0, 1.0),
    ),
    _subject(
        "Concrete",
        _of_logits(),
        lambda given: distributions.Concrete(given["unit"][0], 0.7),
        follows=False,
        options="simplex",
        dimensions=SEVERAL,
    ),
    _subject(
        "DiscretizedLogisticMixture",
        _logistics,
        lambda given: distributions.DiscretizedLogisticMixture(
            *given["free"], given["unit"][0], 1, bits=2
        ),
        follows=False,
        values=LEVELS,
    ),
    _subject(
        "PixelCategorical",
        _of_logits(4),
        lambda given: distributions.PixelCategorical(given["unit"][0], 1),
        follows=False,
        values=LEVELS,
    ),
    _subject(
        "CodeMaps",
        _context,
        _code_maps,
        follows=False,
        values=(0, 1, 2),
        sampled="int32",
        dimensions=(1, 3, 20),
    ),
)

PROGRAMS = [
    program for subject in SUBJECTS for program in programs(subject, count=10, num_cases=14)
]


def arguments(program: Program, case: Case) -> oracle.Arguments:
    """Draws what the compiled function takes."""
    random = np.random.default_rng(case.seed)
    subject, dtype = program.subject, program.dtype
    if subject.options == "interval":
        # Float32 tells noise of this size apart in the interval.
        case = case._replace(exponent=case.exponent // 50)
    maker = subject.make(program.dimension)
    drawn = maker.draw(random, program.context or (), program.dimension)
    shape = (*program.batch, program.dimension)
    x = oracle.in_unit(case.spread * oracle.draw(random, *shape), case, dtype)
    if subject.values:
        integers = isinstance(subject.values[0], int)
        x = random.choice(subject.values, size=shape).astype("int32" if integers else dtype)
        x = x[..., None] if integers else x
    if subject.options == "simplex":
        x = random.dirichlet(np.ones(program.dimension), size=program.batch).astype(dtype)
    if subject.public == "ContinuousBernoulli":
        x = random.uniform(-0.5, 0.5, size=shape).astype(dtype)
    return {
        "seed": np.uint32(case.seed),
        "unit": tuple(oracle.in_unit(each, case, dtype) for each in drawn["unit"]),
        "free": tuple(each.astype(dtype) for each in drawn["free"]),
        "scalar": jnp.dtype(oracle.wide(dtype)).type(2.0**case.exponent),
        "x": x,
    }


def compiled(program: Program) -> Any:
    """Returns the function of a program."""
    maker = program.subject.make(program.dimension)

    def function(seed, unit, free, scalar, x) -> oracle.Results:
        def build(parameters):
            return maker.build(parameters | {"dimension": program.dimension})

        parameters = {"unit": unit, "free": free, "scalar": scalar}
        return densities.results_of(build, parameters, x, jax.random.key(seed))

    return function


def problems(program: Program) -> list[str]:
    """Lists how a program violates the laws."""
    return oracle.problems_of(program, compiled(program), arguments, densities.check)
