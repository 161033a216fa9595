"""Checks of gradients: finite at edges, not zero, and equal to finite differences."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vaeflow.testing.case import BATCH, Case, both_ways
from vaeflow.testing.pytrees import (
    expect_close,
    expect_finite,
    float_leaves,
    leaf_names,
    replace_float_leaves,
    show,
    to_numpy,
)

STEPS = (1e-2, 2e-3, 4e-4, 1e-4)
"""Step sizes of finite differences, relative to the norm of the perturbed array where that
exceeds one: long for float32, shorter where a long step meets kinks of a network."""

SECOND_STEPS = (4e-3, 1e-3)
"""Step sizes of finite differences of gradients."""

DIFFERENCE_TOLERANCE = 1e-2
"""Relative tolerance between a gradient and a finite difference."""


def check_edges(case: Case) -> None:
    """Values and gradients are finite at and beyond the edges of the domain.

    Only log-determinants may be -inf, as they are of points that have no image or preimage.
    """
    names = leaf_names(case.batched)
    for direction, edges in (("forward", case.edges), ("inverse", case.inverse_edges)):
        for edge in edges:
            forward = direction == "forward"
            x = _filled(edge, case.x) if forward else case.x
            y = case.y if forward else _filled(edge, case.y)
            outputs, gradients = case.evaluate(case.batched, x, y)
            where = x[0] if forward else y[0]
            value, log_det = outputs[:2] if forward else outputs[2:]
            expect_finite(f"{direction} at an edge", value, inputs=where)
            log_det = jnp.where(log_det == -jnp.inf, 0.0, log_det)
            expect_finite(f"{direction} log-det at an edge", log_det, inputs=where)
            gradient = gradients.x if forward else gradients.y
            expect_finite(
                f"gradient of {direction} to its input at an edge", gradient, inputs=where
            )
            for name, gradient in zip(names, gradients.parameters, strict=True):
                expect_finite(
                    f"gradient of {direction} to leaf {name} at an edge", gradient, inputs=where
                )


def _filled(edge, like: Array) -> Array:
    return jnp.broadcast_to(jnp.asarray(edge, like.dtype), like.shape)


def check_parameter_gradients(case: Case) -> None:
    """Every floating-point leaf gets a finite gradient that isn't zero, unless it is `constant`."""
    names = leaf_names(case.batched)
    unknown = [pattern for pattern in case.constant if not fnmatch.filter(names, pattern)]
    if unknown:
        raise AssertionError(f"constant: expected names among the leaves {names}, got {unknown}")
    for name, gradient in zip(names, case.gradients.parameters, strict=True):
        expect_finite(f"gradient to leaf {name}", gradient, inputs=case.x)
        if not _is_constant(case, name) and not np.any(to_numpy(gradient)):
            raise AssertionError(
                f"gradient to leaf {name}: expected an element other than zero, got only zeros in "
                f"shape {gradient.shape}: no value and no log-determinant depends on it"
            )


def _is_constant(case: Case, name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in case.constant)


def check_finite_differences(case: Case) -> None:
    """Gradients agree with finite differences, along one direction for each leaf and input.

    The direction is half the gradient, for a clear signal, and half random, so that a gradient that
    lacks components shows. A gradient fails where it disagrees along several directions, each with
    a step of another length: a kink of a network inside a step spoils some of them, not all.
    """
    leaves = float_leaves(case.batched)
    names = leaf_names(case.batched)
    for index, (name, leaf, gradient) in enumerate(
        zip(names, leaves, case.gradients.parameters, strict=True)
    ):
        if _is_constant(case, name):
            continue

        def moved(step: Array, index: int = index) -> tuple[distrax.Bijector, Array, Array]:
            values = [
                value + step if place == index else value for place, value in enumerate(leaves)
            ]
            return replace_float_leaves(case.batched, values), case.x, case.y

        _expect_difference(case, f"leaf {name}", moved, leaf, gradient)
    _expect_difference(
        case,
        "the input of forward",
        lambda step: (case.batched, case.x + step, case.y),
        case.x,
        case.gradients.x,
    )
    _expect_difference(
        case,
        "the input of the inverse",
        lambda step: (case.batched, case.x, case.y + step),
        case.y,
        case.gradients.y,
    )


def check_differentiation(case: Case) -> None:
    """Forward mode agrees with backward mode, and second derivatives with finite differences.

    Second derivatives are those of forward over backward mode, as in `jax.hessian`. All are along
    one direction of both inputs. A TypeError that says that there are no forward-mode derivatives
    passes.
    """
    generator = np.random.default_rng(0)
    directions = tuple(
        jnp.asarray(generator.normal(size=values.shape), values.dtype)
        for values in (case.x, case.y)
    )

    @jax.jit
    def derivatives(bijector: distrax.Bijector, x: Array, y: Array) -> Any:
        def value(x: Array, y: Array) -> Array:
            outputs = both_ways(bijector, x, y)
            # Sines, so that maps which are linear have second derivatives as well.
            terms = zip(case.weights, outputs, strict=True)
            return sum(jnp.sum(weight * jnp.sin(values)) for weight, values in terms)

        _, along = jax.jvp(value, (x, y), directions)
        gradient = jax.grad(value, argnums=(0, 1))
        at, change = jax.jvp(gradient, (x, y), directions)

        def moved(step: float) -> Any:
            return gradient(*(v + step * d for v, d in zip((x, y), directions, strict=True)))

        far, near = ((moved(step), moved(-step)) for step in SECOND_STEPS)
        return along, at, change, far, near

    try:
        along, at, change, far, near = derivatives(case.batched, case.x, case.y)
    except TypeError as error:
        if "no forward-mode derivatives" in str(error):
            return
        raise
    expected = sum(float(jnp.vdot(g, d)) for g, d in zip(at, directions, strict=True))
    expect_close("forward against backward mode", along[None], [expected], 1e-3, inputs=case.x[:1])
    for number, name in enumerate(("forward", "inverse")):
        wide, narrow = (
            to_numpy(plus[number] - minus[number]) / (2 * step)
            for (plus, minus), step in zip((far, near), SECOND_STEPS, strict=True)
        )
        # Where a kink of a network lies between, the two differences disagree: by a jump of the
        # gradient over either width, if it lies inside both.
        share = 1 - SECOND_STEPS[1] / SECOND_STEPS[0]
        error = float(np.linalg.norm(wide - narrow)) / share + 1e-3 / SECOND_STEPS[1]
        got, size = to_numpy(change[number]), float(np.linalg.norm(narrow))
        if not float(np.linalg.norm(got - narrow)) <= 0.05 * size + error:
            raise AssertionError(
                f"second derivative of {name} along one direction: expected {show(narrow)} from "
                f"finite differences, got {show(got)}"
            )


def _expect_difference(case: Case, what: str, moved, value: Array, gradient: Array) -> None:
    gradient = to_numpy(gradient)
    generator = np.random.default_rng(0)
    for step in STEPS:
        direction = _unit(_unit(gradient) + _unit(generator.normal(size=gradient.shape)))
        length = step * max(1.0, float(np.linalg.norm(to_numpy(value))))

        def terms(multiple: int, arrow: np.ndarray = length * direction) -> np.ndarray:
            return _weighted_terms(case, *moved(jnp.asarray(multiple * arrow, value.dtype)))

        expected, error = _derivative(terms, length)
        got = float(np.sum(gradient * direction))
        tolerance = DIFFERENCE_TOLERANCE * max(abs(got), abs(expected)) + error
        if abs(got - expected) <= tolerance:
            return
    raise AssertionError(
        f"gradient to {what}, along one direction: expected {expected:.6g} from finite "
        f"differences, got {got:.6g} (tolerance {tolerance:.2g}), around {show(case.x)}"
    )


def _derivative(terms: Callable[[int], np.ndarray], length: float) -> tuple[float, float]:
    """A fourth-order central difference of the sum of the terms, and its error."""
    near = (terms(1) - terms(-1)) / (2 * length)
    far = (terms(2) - terms(-2)) / (4 * length)
    rounding = 1e-6 * float(np.linalg.norm(terms(0))) / length
    return float(np.sum(4 * near - far) / 3), float(abs(np.sum(near - far))) + rounding


def _weighted_terms(case: Case, bijector: distrax.Bijector, x: Array, y: Array) -> np.ndarray:
    # Terms are kept apart, in float64: those that don't change cancel exactly.
    outputs, _ = case.evaluate(bijector, x, y)
    parts = [to_numpy(w) * to_numpy(v) for w, v in zip(case.weights, outputs, strict=True)]
    return np.concatenate([part.ravel() for part in parts])


def _unit(values: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(values)
    return values / norm if norm > 0 else values


def check_context(case: Case) -> None:
    """Another context gives another result, and gradients reach the context."""
    if case.context_shape is None:
        return
    other = case.compiled_bijector(0, case.contexts + 1.0)
    outputs, _ = case.evaluate(other, case.x, case.y)
    changed = [
        not np.array_equal(to_numpy(a), to_numpy(b))
        for a, b in zip(outputs, case.outputs, strict=True)
    ]
    if not any(changed):
        raise AssertionError(
            "context ignored: expected another result for another context, got the same values and "
            f"log-determinants for contexts of shape {case.contexts.shape}"
        )

    def leaves(contexts: Array) -> list[Array]:
        return float_leaves(case.bijector(0, contexts))

    # The gradient to the leaves is known; pull it back from them to the context.
    @jax.jit
    def pull_back(contexts: Array, gradients: list[Array]) -> Array:
        return jax.vjp(leaves, contexts)[1](gradients)[0]

    gradients = pull_back(case.contexts, case.gradients.parameters)
    expect_finite("gradient to the context", gradients, inputs=case.contexts)
    for row in range(BATCH):
        if not np.any(to_numpy(gradients[row])):
            raise AssertionError(
                f"gradient to the context of example {row}: expected some element other than zero, "
                f"got only zeros, for the context {show(case.contexts[row])}"
            )
