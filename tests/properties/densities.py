"""Bases and distributions in every unit: what is compiled of them, and their oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np

from tests.properties import oracle
from tests.properties.cases import Case, Program

IN_UNIT = ("value", "mean", "unit", "scalar")
"""Names of floats in the unit of the values, these among them."""

POINTS = ("mean", "mode", "median")
"""Methods whose result has the shape and the unit of an event."""


def results_of(
    build: Callable[[Any], distrax.Distribution], parameters: Any, x: Any, key: Any
) -> oracle.Results:
    """Computes all that the oracle looks at.

    Args:
      build: From parameters to a distribution.
      parameters: Pytree of floats.
      x: Values, floats or integers.
      key: For the samples.
    """

    def total(floats):
        value = floats.get("value", x)
        log_prob = build(floats["parameters"]).log_prob(value)
        return jnp.sum(jnp.where(jnp.isfinite(log_prob), log_prob, 0)), log_prob

    real = jnp.issubdtype(x.dtype, jnp.floating)
    floats = {"parameters": parameters} | ({"value": x} if real else {})
    gradients, log_prob = jax.grad(total, has_aux=True)(floats)
    distribution = build(parameters)
    samples, density = distribution.sample_and_log_prob(seed=key, sample_shape=oracle.SAMPLES)
    again = oracle.nudged(samples) if real else samples[None]
    return {
        "log_prob": log_prob,
        "gradients": gradients,
        "samples": samples,
        "density": density,
        "again": distribution.log_prob(again),
        **_closed_forms(distribution),
    }


def _closed_forms(distribution: distrax.Distribution) -> oracle.Results:
    """Those of the methods that the distribution has."""
    found = {}
    for name in (*POINTS, "entropy"):
        try:
            found[name] = getattr(distribution, name)()
        except NotImplementedError:
            continue
    return found


def check(
    program: Program,
    case: Case,
    given: oracle.Arguments,
    results: oracle.Results,
    one: oracle.Results,
) -> Iterator[str]:
    """Yields how the results of a case violate the laws of distributions."""
    x, samples = given["x"], results["samples"]
    event, batch = x.shape[len(program.batch) :], program.context or ()
    # That of a network's outputs where values are integers.
    wide = oracle.wide("float32" if program.subject.sampled else program.dtype)
    of_samples = (oracle.SAMPLES, *batch)
    real = np.issubdtype(samples.dtype, np.floating) or samples.dtype == jnp.bfloat16
    yield from oracle.shapes_and_types(
        results,
        log_prob=(program.result, wide),
        samples=((*of_samples, *event), program.subject.sampled or wide),
        density=(of_samples, wide),
        **{name: ((*batch, *event), results[name].dtype) for name in POINTS if name in results},
        **({"entropy": (batch, wide)} if "entropy" in results else {}),
    )
    lowest = program.subject.options in ("bounded", "interval")
    yield from oracle.below("log_prob", results["log_prob"], lowest=lowest)
    # Those by logits are of size one however large the logits are.
    strict = not program.subject.follows and case.exponent > 0
    yield from oracle.finite_gradients(results, case, strict=strict)
    yield from oracle.agreement(program, results)
    for name in (*POINTS, "entropy"):
        if name in results and np.any(np.isnan(np.asarray(results[name], np.float64))):
            yield f"{name} is NaN"
    if not program.subject.follows or not real:
        return
    for name in ("log_prob", "density"):
        yield from oracle.follows_unit(name, results[name], one[name], program, case)
    if case.spread < oracle.FAR:
        gradients, before = results["gradients"], one["gradients"]
        yield from oracle.gradients_follow_unit(gradients, before, case, IN_UNIT)
    for name in ("samples", *POINTS):
        if name in results:
            yield from oracle.in_its_unit(name, results[name], one[name], case)
    if "entropy" in results:
        yield from oracle.follows_unit(
            "-entropy", -results["entropy"], -one["entropy"], program, case
        )
