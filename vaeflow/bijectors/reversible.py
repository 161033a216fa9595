"""Backpropagation through stacked steps by inversion, with verified recovery of the states.

The forward pass stores the state before every segment of steps. The backward pass recovers those
inside a segment by inverting its steps from the end, compares the recovered start with the stored
one, and recomputes the segment from its start where they differ by more than
`RECOVERY_TOLERANCE`.

Source: Gomez, Ren, Urtasun & Grosse 2017, "The reversible residual network"; verification and
recomputation are our addition.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vaeflow._util.derivatives import backward_only
from vaeflow.bijectors.base import Bijector

PyTree = Any
Step = Callable[[PyTree, PyTree], distrax.Bijector]

RECOVERY_TOLERANCE = 1e-5
"""Largest accepted error of a recovered state, relative to 1 + its largest absolute value."""


NO_FORWARD_MODE = (
    'Scan: backward="reversible" has no forward-mode derivatives (jvp, jacfwd); '
    '"plain" and "remat" have'
)


def reversible_scan(
    step: Callable[[PyTree, PyTree], Bijector],
    segment: int,
    unroll: bool,
    event_ndims: int,
    variables: PyTree,
    context: PyTree,
    x: Array,
) -> tuple[Array, Array]:
    """Applies stacked steps in order, storing one state per segment for the backward pass.

    Gradients equal those of plain backpropagation however ill-conditioned the steps are: a segment
    whose start isn't recovered to `RECOVERY_TOLERANCE`, because rounding errors grew, is
    recomputed from the stored start, without inversion.

    Args:
      step: Hashable function from the parameters of one step and the context to a bijector.
      segment: Number of steps between two stored states.
      unroll: Whether to unroll the loop over the steps of a segment.
      event_ndims: Number of trailing axes of x that make an event.
      variables: Parameters, stacked along the first axis of every leaf.
      context: Pytree that all steps share.
      x: Input of the first step, float32 or wider.

    Returns:
      The output of the last step, and the sum of the log-determinants.

    Raises:
      TypeError: If it is differentiated in forward mode, unless that is over a gradient.
    """
    variables, context, x = jax.tree.map(
        lambda leaf: (
            backward_only(leaf, NO_FORWARD_MODE)
            if jnp.issubdtype(leaf.dtype, jnp.inexact)
            else leaf
        ),
        (variables, context, x),
    )
    return _reversible_scan(step, segment, unroll, event_ndims, variables, context, x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _reversible_scan(step, segment, unroll, event_ndims, variables, context, x):
    return _forward(step, segment, unroll, event_ndims, variables, context, x)[0]


def _forward(step, segment, unroll, event_ndims, variables, context, x):
    def one_step(carry, step_variables):
        x, log_det = carry
        y, step_log_det = step(step_variables, context).forward_and_log_det(x)
        return (y, log_det + step_log_det), None

    def one_segment(carry, segment_variables):
        start = carry[0]
        carry, _ = jax.lax.scan(one_step, carry, segment_variables, unroll=unroll)
        return carry, start

    carry = (x, jnp.zeros(x.shape[: x.ndim - event_ndims], x.dtype))
    starts = []
    for part in _segments(variables, segment):
        carry, part_starts = jax.lax.scan(one_segment, carry, part)
        starts.append(part_starts)
    return carry, (variables, context, jnp.concatenate(starts), carry[0])


def _backward(step, segment, unroll, event_ndims, residuals, cotangents):
    variables, context, starts, y = residuals
    dy, dlog_det = cotangents
    ends = jnp.concatenate([starts[1:], y[None]])
    by_inversion, recomputed = (
        functools.partial(function, step, unroll, context, dlog_det)
        for function in (_segment_by_inversion, _segment_recomputed)
    )

    def one_segment(carry, inputs):
        start, end, segment_variables = inputs
        recovered, pulled_back = by_inversion(end, *carry, segment_variables)
        error = jnp.max(jnp.abs(recovered - start), initial=0.0)
        bound = RECOVERY_TOLERANCE * (1 + jnp.max(jnp.abs(start), initial=0.0))
        # `cond` compiles the recomputation as well, but runs it only where inversion failed.
        return jax.lax.cond(
            error <= bound,
            lambda: pulled_back,
            lambda: recomputed(start, *carry, segment_variables),
        )

    carry = (dy, [jnp.zeros_like(leaf) for leaf in differentiable(context)])
    gradients, last = [], len(starts)
    for part in reversed(_segments(variables, segment)):
        first = last - len(jax.tree.leaves(part)[0])
        inputs = (starts[first:last], ends[first:last], part)
        carry, dpart = jax.lax.scan(one_segment, carry, inputs, reverse=True)
        gradients.insert(0, [leaf.reshape((-1, *leaf.shape[2:])) for leaf in dpart])
        last = first
    dx, dcontext = carry
    dvariables = [jnp.concatenate(leaves) for leaves in zip(*gradients, strict=True)]
    return as_cotangent(variables, dvariables), as_cotangent(context, dcontext), dx


_reversible_scan.defvjp(_forward, _backward)


def _segment_by_inversion(
    step: Step,
    unroll: bool,
    context: PyTree,
    dlog_det: Array,
    end: Array,
    dy: Array,
    dcontext: list[Array],
    segment_variables: PyTree,
) -> tuple[Array, tuple[tuple[Array, list[Array]], list[Array]]]:
    """Pulls cotangents back through a segment, recovering its states from the last one.

    Returns:
      The recovered state at the start of the segment, and the cotangents: those of that state and
      of the context, and those of the variables.
    """

    def body(carry, step_variables):
        y, dy, dcontext = carry
        recover = functools.partial(_invert_and_pull_back, y=y, dy=dy, dlog_det=dlog_det)
        x, dx, dcontext, dvariables = _pull_back_step(
            step, recover, step_variables, context, dcontext
        )
        return (x, dx, dcontext), dvariables

    carry = (end, dy, dcontext)
    (start, *carry), dvariables = jax.lax.scan(
        body, carry, segment_variables, reverse=True, unroll=unroll
    )
    return start, (tuple(carry), dvariables)


def _segment_recomputed(
    step: Step,
    unroll: bool,
    context: PyTree,
    dlog_det: Array,
    start: Array,
    dy: Array,
    dcontext: list[Array],
    segment_variables: PyTree,
) -> tuple[tuple[Array, list[Array]], list[Array]]:
    """Pulls cotangents back through a segment, recomputing its states from the first one.

    Returns:
      The cotangents of the state at the start and of the context, and those of the variables.
    """

    def advance(x, step_variables):
        return step(step_variables, context).forward(x), x

    def body(carry, inputs):
        dy, dcontext = carry
        x, step_variables = inputs

        def recover(bijector):
            (_, log_det), pull_back = jax.vjp(_forward_and_log_det, bijector, x)
            dbijector, dx = pull_back((dy, dlog_det.astype(log_det.dtype)))
            return x, dx, dbijector

        _, dx, dcontext, dvariables = _pull_back_step(
            step, recover, step_variables, context, dcontext
        )
        return (dx, dcontext), dvariables

    _, states = jax.lax.scan(advance, start, segment_variables, unroll=unroll)
    inputs = (states, segment_variables)
    return jax.lax.scan(body, (dy, dcontext), inputs, reverse=True, unroll=unroll)


def _pull_back_step(
    step: Step,
    recover: Callable[[distrax.Bijector], tuple[Array, Array, PyTree]],
    step_variables: PyTree,
    context: PyTree,
    dcontext: list[Array],
) -> tuple[Array, Array, list[Array], list[Array]]:
    """Pulls the cotangents of one step back.

    Args:
      step: The step.
      recover: Function from the step's bijector to its input, the input's cotangent, and the
        cotangent of the bijector itself.
      step_variables: Parameters of the step.
      context: Pytree that all steps share.
      dcontext: Cotangents of the context from later steps.

    Returns:
      The input and its cotangent, and the cotangents of the context and of the parameters.
    """
    bijector, pull_back = jax.vjp(step, step_variables, context)
    x, dx, dbijector = recover(bijector)
    dvariables, dstep_context = pull_back(dbijector)
    dcontext = [a + b for a, b in zip(dcontext, differentiable(dstep_context), strict=True)]
    return x, dx, dcontext, differentiable(dvariables)


def _invert_and_pull_back(
    bijector: distrax.Bijector, y: Array, dy: Array, dlog_det: Array
) -> tuple[Array, Array, PyTree]:
    """Recovers x from y = f(x), and pulls cotangents back to x and to the bijector.

    Each part of a composition is inverted and differentiated at the same point: a coupling's
    network then appears twice on equal inputs, and the compiler merges the two calls.
    """
    parts, structure = jax.tree.flatten(bijector, is_leaf=_is_part)
    dparts: list[PyTree] = [None] * len(parts)
    for index, inverted in reversed(_order(bijector)):
        x = parts[index].forward(y) if inverted else parts[index].inverse(y)
        apply = _inverse_and_log_det if inverted else _forward_and_log_det
        (_, log_det), pull_back = jax.vjp(apply, parts[index], x)
        # A part without parameters may return float32 where others are wider.
        dparts[index], dy = pull_back((dy, dlog_det.astype(log_det.dtype)))
        y = x
    return y, dy, jax.tree.unflatten(structure, dparts)


def _is_part(node: Any) -> bool:
    return isinstance(node, distrax.Bijector) and _composition(node) is None


def _composition(bijector: distrax.Bijector) -> str | None:
    return getattr(bijector, "composition", None)


def _order(bijector: distrax.Bijector) -> list[tuple[int, bool]]:
    """Lists the parts in order of application: index in the pytree, and whether inverted."""
    if _composition(bijector) == "inverse":
        return [(index, not inverted) for index, inverted in reversed(_order(bijector.bijector))]
    if _composition(bijector) == "chain":
        orders, offset = [], 0
        for part in bijector.bijectors:
            order = _order(part)
            orders.append([(offset + index, inverted) for index, inverted in order])
            offset += len(order)
        return [part for order in reversed(orders) for part in order]
    return [(0, False)]


def _forward_and_log_det(bijector, x):
    return bijector.forward_and_log_det(x)


def _inverse_and_log_det(bijector, x):
    return bijector.inverse_and_log_det(x)


def _segments(variables: PyTree, segment: int) -> list[PyTree]:
    """Splits stacked leaves [K, ...] into full segments, and a shorter last one if steps remain.

    Returns:
      One or two trees with leaves [count, steps, ...].
    """
    depth = jax.tree.leaves(variables)[0].shape[0]
    num_full = depth - depth % segment
    parts = []
    if num_full:
        parts.append(
            jax.tree.map(
                lambda leaf: leaf[:num_full].reshape((-1, segment, *leaf.shape[1:])), variables
            )
        )
    if num_full < depth:
        parts.append(jax.tree.map(lambda leaf: leaf[None, num_full:], variables))
    return parts


def differentiable(tree: PyTree) -> list[Array]:
    """Lists the leaves that have cotangents, without integers and their float0 cotangents."""
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]


def as_cotangent(tree: PyTree, cotangents: list[Array]) -> PyTree:
    """Replaces differentiable leaves by their cotangents, other leaves by float0 zeros."""
    remaining = iter(cotangents)
    return jax.tree.map(
        lambda leaf: (
            next(remaining)
            if jnp.issubdtype(leaf.dtype, jnp.inexact)
            else np.zeros(leaf.shape, jax.dtypes.float0)
        ),
        tree,
    )
