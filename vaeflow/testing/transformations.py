"""Checks under JAX's transformations: jit, leading batch axes, vmap and scan."""

from __future__ import annotations

from typing import Any

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vaeflow.testing.case import Case, Outputs, both_ways
from vaeflow.testing.pytrees import expect_close


def check_jit(case: Case) -> None:
    """Compiled and uncompiled calls agree, that of `make` among them."""
    context = None if case.contexts is None else case.contexts[0]
    eager = both_ways(case.bijector(0, context), case.x[0], case.y[0])
    compiled = case.evaluate_single(case.singles[0], case.x[0], case.y[0])
    _expect_outputs(
        case, "called without jit", _stack([eager]), _stack([compiled]), case.x[:1], case.y[:1]
    )


def check_pytree(case: Case) -> None:
    """A bijector goes into jit and comes out again, and new parameters don't retrace it."""
    case.evaluate(case.batched, case.x, case.y)
    before = len(case.traces)
    called = case.bijector(0, case.contexts)
    jax.eval_shape(lambda x, y: both_ways(called, x, y), case.x, case.y)
    others = {
        "a bijector that was called before": called,
        "another bijector from make": case.bijector(1, case.contexts),
        "the bijector as a compiled function returned it": jax.jit(lambda bijector: bijector)(
            case.batched
        ),
    }
    for what, other in others.items():
        case.evaluate(other, case.x, case.y)
        if len(case.traces) > before:
            raise AssertionError(
                f"retraced: expected no second trace of a compiled function for {what}, got one; "
                f"{_difference(case.batched, other)}"
            )


def _difference(first: Any, second: Any) -> str:
    structures = jax.tree.structure(first), jax.tree.structure(second)
    if structures[0] != structures[1]:
        return f"its static parts went from {structures[0]} to {structures[1]}"
    for index, pair in enumerate(zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)):
        types = [jax.typeof(leaf) for leaf in pair]
        weak = [" (weakly typed)" if kind.weak_type else "" for kind in types]
        if types[0] != types[1] or weak[0] != weak[1]:
            return f"leaf {index} went from {types[0]}{weak[0]} to {types[1]}{weak[1]}"
    return "its static parts print the same but don't compare equal"


def check_batch_axes(case: Case) -> None:
    """Zero, one and two leading axes give the same outputs as the examples one at a time.

    With two axes a context has only the second, so that the first is an axis of samples.
    """
    _expect_outputs(
        case, "one leading axis", case.outputs, _one_at_a_time(case, case.x, case.y), case.x, case.y
    )

    # The second row is in another order: a mix-up between the axes shows.
    x, y = (jnp.stack([values, jnp.roll(values, 1, axis=0)]) for values in (case.x, case.y))
    two_axes = jax.jit(both_ways)(case.batched, x, y)
    for name, values, one_axis in zip(Outputs._fields, two_axes, case.outputs, strict=True):
        if values.shape != (2, *one_axis.shape):
            raise AssertionError(
                f"two leading axes: expected {name} of shape {(2, *one_axis.shape)}, "
                f"got shape {values.shape}, on input of shape {x.shape}"
            )
    for row in range(2):
        outputs = jax.tree.map(lambda values, row=row: values[row], two_axes)
        expected = _one_at_a_time(case, x[row], y[row])
        _expect_outputs(case, f"two leading axes, row {row}", outputs, expected, x[row], y[row])


def check_vmap(case: Case) -> None:
    """Mapping over bijectors with stacked parameters gives the outputs of each bijector."""
    bijectors, x, y, expected = _two_bijectors(case)
    outputs = jax.jit(jax.vmap(both_ways))(_stack(bijectors), x, y)
    _expect_outputs(case, "mapped over stacked bijectors", outputs, expected, x, y)


def check_scan(case: Case) -> None:
    """A bijector serves as the carry of a scan, and stacked ones as what is scanned over."""
    bijectors, x, y, expected = _two_bijectors(case)

    @jax.jit
    def scanned(
        carried: distrax.Bijector, stacked: distrax.Bijector, x: Array, y: Array
    ) -> Outputs:
        def step(carry: distrax.Bijector, inputs: Any) -> tuple[distrax.Bijector, Outputs]:
            bijector, x, y = inputs
            return carry, Outputs(*bijector.forward_and_log_det(x), *carry.inverse_and_log_det(y))

        return jax.lax.scan(step, carried, (stacked, x, y))[1]

    outputs = scanned(bijectors[0], _stack(bijectors), x, y)
    carried = _stack([case.evaluate_single(bijectors[0], x[0], one) for one in y])
    expected = Outputs(expected.y, expected.forward_log_det, carried.x, carried.inverse_log_det)
    _expect_outputs(case, "in a scan", outputs, expected, x, y)


def _two_bijectors(case: Case) -> tuple[list[distrax.Bijector], Array, Array, Outputs]:
    bijectors = [
        case.singles[0],
        case.bijector(1, None if case.contexts is None else case.contexts[1]),
    ]
    x = case.x[:2]
    y = jnp.stack([case.evaluate_single(bijector, x[0], case.y[0]).y for bijector in bijectors])
    outputs = [case.evaluate_single(*arguments) for arguments in zip(bijectors, x, y, strict=True)]
    return bijectors, x, y, _stack(outputs)


def _one_at_a_time(case: Case, x: Array, y: Array) -> Outputs:
    return _stack(
        [case.evaluate_single(*arguments) for arguments in zip(case.singles, x, y, strict=True)]
    )


def _stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _expect_outputs(
    case: Case, what: str, got: Outputs, expected: Outputs, x: Array, y: Array
) -> None:
    names = ("forward", "forward log-det", "inverse", "inverse log-det")
    for name, values, wanted, inputs in zip(names, got, expected, (x, x, y, y), strict=True):
        expect_close(f"{name} {what}", values, wanted, case.tolerance, inputs=inputs)
