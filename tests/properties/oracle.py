"""The parts of the oracles that flows, bases and distributions share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from tests.makers import numbers
from tests.properties.cases import Case, Program

SAMPLES = 4
"""Number of samples of each distribution."""

ROUNDING = 3e-7
"""A relative change of numbers that float32 rounding may make."""

NUDGED = ("again", "back")
"""Results whose first axis is that of `nudged`."""

FAR = 1e3
"""Spread from which values are so far out that rounding hides much of them."""

OVERFLOW = 1e15
"""Numbers whose squares, after some layers, are near the end of float32."""

LARGEST_GRADIENT = 1e36
"""Size of log_prob over a unit of data up to which gradients must be finite."""

Results = dict[str, Any]
Arguments = dict[str, Any]


def nudged(x: Array) -> Array:
    """x, and x with every entry rounded up or down at random, along a new first axis."""
    step = ROUNDING if x.dtype == jnp.float32 else 1e-15
    signs = np.sign(np.random.default_rng(0).normal(size=(3, *x.shape)))
    signs[0] = 0
    return x * (1 + step * signs).astype(x.dtype)


def perturbed(tree: Any, key: Array, relative: tuple[str, ...] = (), scale: float = 0.05) -> Any:
    """Adds noise to every leaf, relative to its size where it is named."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    ends = np.cumsum([leaf.size for _, leaf in leaves])
    parts = jnp.split(numbers(key, int(ends[-1]), scale=scale), ends[:-1])
    result = []
    for part, (path, leaf) in zip(parts, leaves, strict=True):
        noise = part.reshape(leaf.shape).astype(leaf.dtype)
        size = leaf if path[-1].key in relative else 1
        if leaf.ndim > 1:  # a sum over many inputs isn't to be noisier
            size = size / math.sqrt(leaf.shape[-2])
        result.append(leaf + noise * size)
    return jax.tree.unflatten(structure, result)


def draw(random: np.random.Generator, *shape: int) -> np.ndarray:
    """Normal numbers, not farther out than 4."""
    return np.clip(random.normal(size=shape), -4, 4)


def in_unit(values: np.ndarray, case: Case, dtype: Any) -> np.ndarray:
    """Values in the unit of a case: rounded before, so that they are rounded alike in each."""
    rounded = np.asarray(values, np.float64).astype(dtype)
    return (rounded.astype(np.float64) * 2.0**case.exponent).astype(dtype)


def wide(dtype: Any) -> Any:
    """The type of log-densities of values of a type."""
    return jnp.promote_types(dtype, jnp.float32)


def as_wide(tree: Any, dtype: str) -> Any:
    """Floats in float64 where that is the type of a program: then all that is computed is."""
    if dtype != "float64":
        return tree
    return jax.tree.map(
        lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree
    )


def finer(program: Program) -> float:
    """Factor of tolerances: float64 is finer, but where an equation is solved to 1e-5."""
    coarse = program.subject.sampled or program.subject.options == "solved"
    return 1e-6 if program.dtype == "float64" and not coarse else 1.0


def problems_of(
    program: Program,
    function: Callable[..., Results],
    arguments: Callable[[Program, Case], Arguments],
    check: Callable[[Program, Case, Arguments, Results, Results], Iterator[str]],
) -> list[str]:
    """Runs all cases of a program; lists the violations.

    Args:
      program: The program.
      function: To be compiled: from the arguments of a case to its results.
      arguments: Draws the arguments of a case.
      check: The oracle: yields violations, given a case, its arguments, its results, and the
        results of the same case in the unit of one.
    """
    # Infinities that are wrong are told as such.
    with np.errstate(invalid="ignore", over="ignore"):
        return list(_problems_of(program, function, arguments, check))


def _problems_of(program, function, arguments, check) -> Iterator[str]:
    run = jax.jit(lambda given: function(**given))

    @functools.cache
    def results(case: Case) -> Results:
        return jax.device_get(run(arguments(program, case)))

    cases = list(program.cases())
    for case in cases:
        one = results(case._replace(exponent=0))
        for problem in check(program, case, arguments(program, case), results(case), one):
            yield f"{program.name} {tuple(case)}: {problem}"
    if program.members:
        ensemble = jax.jit(jax.vmap(lambda given: function(**given)))
        for start in range(0, len(cases) - program.members + 1, program.members):
            members = cases[start : start + program.members]
            given = jax.tree.map(
                lambda *parts: np.stack(parts), *(arguments(program, c) for c in members)
            )
            together = jax.device_get(ensemble(given))
            for index, case in enumerate(members):
                alone = jax.tree.map(lambda leaf, index=index: leaf[index], together)
                for problem in _differences(program, alone, results(case)):
                    yield f"{program.name} {tuple(case)}: in an ensemble, {problem}"


def _differences(program: Program, found: Results, expected: Results) -> Iterator[str]:
    """Yields the results that differ by more than rounding."""
    # Those that jump where two levels are equally good, and those that have no tolerance of theirs.
    left_out = ("median", "mode") if program.subject.values else ()
    left_out += ("gradients", "parameters")
    least = 1e-37 if program.subject.follows else 1e-6  # in the unit of the data, or of one
    for name, value in expected.items():
        if name in left_out:
            continue
        given, value = (np.asarray(each, np.float64) for each in (found[name], value))
        same = np.array_equal(np.isfinite(given), np.isfinite(value))
        finite = np.isfinite(value) & np.isfinite(given)
        allowed = np.full(value.shape, 1e-3 * np.abs(value[finite]).max(initial=0) + least)
        if name in NUDGED:
            # Rounding may move each of these as far as the nudges move them.
            spread = np.abs(value - value[:1]).sum(0)
            allowed = allowed + np.where(np.isfinite(spread), spread, 0)
        if not same or np.any((np.abs(given - value) > allowed)[finite]):
            yield f"{name} is {given.ravel()[:4]} where one alone has {value.ravel()[:4]}"


def shapes_and_types(results: Results, **expected: tuple[tuple[int, ...], Any]) -> Iterator[str]:
    """Yields the results of another shape or type than expected."""
    for name, (shape, dtype) in expected.items():
        found = results[name]
        if found.shape != tuple(shape) or found.dtype != dtype:
            yield (
                f"{name} has shape {found.shape} and type {found.dtype}, not {tuple(shape)} and "
                f"{jnp.dtype(dtype)}"
            )


def finite_gradients(results: Results, case: Case, *, strict: bool = False) -> Iterator[str]:
    """Yields the gradients that aren't finite, unless, if not strict, they are near float32's end.

    They are about as large as the log-density over the unit, or times it by a network's kernels.
    """
    log_prob = np.asarray(results["log_prob"], np.float64)
    size = np.abs(log_prob[np.isfinite(log_prob)]).max(initial=1)
    if not strict and size * 2.0 ** abs(case.exponent) > LARGEST_GRADIENT:
        return
    for path, leaf in jax.tree_util.tree_leaves_with_path(results["gradients"]):
        if not np.all(np.isfinite(np.asarray(leaf, np.float64))):
            yield f"the gradient of {jax.tree_util.keystr(path)} isn't finite: {leaf.ravel()[:4]}"


def agreement(program: Program, samples: Results) -> Iterator[str]:
    """Yields a difference between the density of samples and their log_prob that rounding can't
    explain.
    """
    density, again = (np.asarray(samples[name], np.float64) for name in ("density", "again"))
    if not np.all(np.isfinite(density)):
        yield f"densities of samples aren't finite: {density.ravel()[:4]}"
        return
    spread = np.abs(again - again[:1]).sum(0)
    error = np.abs(again[0] - density)
    allowed = finer(program) * (1e-3 + 1e-4 * np.abs(density)) + 100 * spread
    if not np.all(error <= allowed):
        worst = np.nanargmax(np.where(np.isnan(error), np.inf, error))
        yield (
            f"log_prob of samples is {again[0].ravel()[worst]}, "
            f"sample_and_log_prob {density.ravel()[worst]}"
        )


def follows_unit(
    name: str, found: np.ndarray, one: np.ndarray, program: Program, case: Case
) -> Iterator[str]:
    """Yields a log-density that doesn't fall by D log(unit) of its value in the unit of one."""
    shift = program.dimension * case.exponent * np.log(2)
    found, one = (np.asarray(each, np.float64) for each in (found, one))
    error = np.abs(found + shift - one)
    slack = 1e-3 + 2e-6 * abs(shift) + (5e-3 if case.spread > 100 else 5e-4) * np.abs(one)
    if not np.all((error <= slack) | (found == one)):
        worst = np.argmax(error - slack) if error.size else 0
        yield f"{name} is {found.ravel()[worst] + shift} after the unit, not {one.ravel()[worst]}"


def in_its_unit(name: str, found: np.ndarray, one: np.ndarray, case: Case) -> Iterator[str]:
    """Yields a value that isn't that in the unit of one, in its own."""
    scaled, one = np.asarray(found, np.float64) / 2.0**case.exponent, np.asarray(one, np.float64)
    if not np.all(np.abs(scaled - one) <= 1e-3 * np.abs(one).max(initial=1e-3)):
        yield f"{name} is {scaled.ravel()[:4]} units, not {one.ravel()[:4]}"


def gradients_follow_unit(
    gradients: Any, one: Any, case: Case, in_unit_names: tuple[str, ...] = ()
) -> Iterator[str]:
    """Yields a gradient that isn't that in the unit of one, or that per unit by a value in it."""
    found = jax.tree_util.tree_leaves_with_path(gradients)
    for (path, leaf), before in zip(found, jax.tree.leaves(one), strict=True):
        name = jax.tree_util.keystr(path)
        names = {getattr(part, "key", None) for part in path}
        unit = 2.0**case.exponent if names & set(in_unit_names) else 1.0
        leaf, before = np.asarray(leaf, np.float64) * unit, np.asarray(before, np.float64)
        # Float32 has no number for the others.
        fits = np.abs(before) / unit < LARGEST_GRADIENT
        error = np.where(fits, np.abs(leaf - before), 0)
        if not np.all(error <= 2e-2 * np.abs(before).max(initial=1e-2)):
            yield f"the gradient of {name} is {leaf.ravel()[:3]} per unit, not {before.ravel()[:3]}"


def below(name: str, found: np.ndarray, *, lowest: bool) -> Iterator[str]:
    """Yields log-densities that are NaN or infinite; minus infinity may be allowed."""
    wrong = np.isnan(found) | np.isposinf(found) | (np.isneginf(found) & (not lowest))
    if np.any(wrong):
        yield f"{name} is {found[wrong].ravel()[:4]}"
