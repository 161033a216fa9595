"""Backpropagation through stacked steps by inverting them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vaeflow.bijectors.base import Bijector
from vaeflow.bijectors.compose import Chain, Inverse

PyTree = Any


LARGEST_ERROR = 1e-5
"""Largest error of a recovered state, relative to one plus its largest entry, that is trusted."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def reversible_scan(
    step: Callable[[PyTree, PyTree], Bijector],
    segment: int,
    unroll: bool,
    event_ndims: int,
    variables: PyTree,
    context: PyTree,
    x: Array,
) -> tuple[Array, Array]:
    """Applies stacked steps in order, storing one state for each segment of them.

    Backpropagation recovers the states inside a segment by inverting its steps, from the state
    stored at its end. What it recovers at the start is compared with the state stored there: where
    rounding has grown beyond `LARGEST_ERROR`, the segment is computed anew, from its start and
    without inversion, so gradients stay those of plain backpropagation however ill-conditioned the
    steps are.

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
    """
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

    def pull_back_step(recover, step_variables, dcontext):
        """Pulls one step's cotangents back; `recover` gives its input's and its bijector's."""
        bijector, pull_back = jax.vjp(step, step_variables, context)
        x, dx, dbijector = recover(bijector)
        dvariables, dstep_context = pull_back(dbijector)
        dcontext = [a + b for a, b in zip(dcontext, differentiable(dstep_context), strict=True)]
        return x, dx, dcontext, differentiable(dvariables)

    def by_inversion(end, dy, dcontext, segment_variables):
        def body(carry, step_variables):
            y, dy, dcontext = carry
            recover = functools.partial(_invert_and_pull_back, y=y, dy=dy, dlog_det=dlog_det)
            x, dx, dcontext, dvariables = pull_back_step(recover, step_variables, dcontext)
            return (x, dx, dcontext), dvariables

        carry = (end, dy, dcontext)
        (start, *carry), dvariables = jax.lax.scan(
            body, carry, segment_variables, reverse=True, unroll=unroll
        )
        return start, (tuple(carry), dvariables)

    def anew(start, dy, dcontext, segment_variables):
        def advance(x, step_variables):
            return step(step_variables, context).forward(x), x

        def body(carry, inputs):
            dy, dcontext = carry
            x, step_variables = inputs

            def recover(bijector):
                (_, log_det), pull_back = jax.vjp(_forward_and_log_det, bijector, x)
                dbijector, dx = pull_back((dy, dlog_det.astype(log_det.dtype)))
                return x, dx, dbijector

            _, dx, dcontext, dvariables = pull_back_step(recover, step_variables, dcontext)
            return (dx, dcontext), dvariables

        _, states = jax.lax.scan(advance, start, segment_variables, unroll=unroll)
        inputs = (states, segment_variables)
        return jax.lax.scan(body, (dy, dcontext), inputs, reverse=True, unroll=unroll)

    def one_segment(carry, inputs):
        start, end, segment_variables = inputs
        recovered, pulled_back = by_inversion(end, *carry, segment_variables)
        error = jnp.max(jnp.abs(recovered - start), initial=0.0)
        bound = LARGEST_ERROR * (1 + jnp.max(jnp.abs(start), initial=0.0))
        return jax.lax.cond(
            error <= bound,
            lambda: pulled_back,
            lambda: anew(start, *carry, segment_variables),
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


reversible_scan.defvjp(_forward, _backward)


def _invert_and_pull_back(
    bijector: distrax.Bijector, y: Array, dy: Array, dlog_det: Array
) -> tuple[Array, Array, PyTree]:
    """Recovers x from y = f(x), and pulls cotangents back to x and to the bijector.

    A composition is taken apart, so that each part is inverted and differentiated at one and the
    same point: a coupling's network then appears twice on equal inputs, which the compiler merges.
    """
    parts, structure = jax.tree.flatten(bijector, is_leaf=_is_part)
    dparts: list[PyTree] = [None] * len(parts)
    for index, inverted in reversed(_order(bijector)):
        x = parts[index].forward(y) if inverted else parts[index].inverse(y)
        apply = _inverse_and_log_det if inverted else _forward_and_log_det
        (_, log_det), pull_back = jax.vjp(apply, parts[index], x)
        # A part without parameters may answer in float32 where others are wider.
        dparts[index], dy = pull_back((dy, dlog_det.astype(log_det.dtype)))
        y = x
    return y, dy, jax.tree.unflatten(structure, dparts)


def _is_part(node: Any) -> bool:
    return isinstance(node, distrax.Bijector) and not isinstance(node, Chain | Inverse)


def _order(bijector: distrax.Bijector) -> list[tuple[int, bool]]:
    """Lists the parts in the order of application: place in the pytree, and whether inverted."""
    if isinstance(bijector, Inverse):
        return [(index, not inverted) for index, inverted in reversed(_order(bijector.bijector))]
    if isinstance(bijector, Chain):
        orders, offset = [], 0
        for part in bijector.bijectors:
            order = _order(part)
            orders.append([(offset + index, inverted) for index, inverted in order])
            offset += len(order)
        return [entry for order in reversed(orders) for entry in order]
    return [(0, False)]


def _forward_and_log_det(bijector, x):
    return bijector.forward_and_log_det(x)


def _inverse_and_log_det(bijector, x):
    return bijector.inverse_and_log_det(x)


def _segments(variables: PyTree, segment: int) -> list[PyTree]:
    """Splits stacked leaves [K, ...] into whole segments, and a shorter one if any is left.

    Returns:
      One or two trees with leaves [count, steps, ...].
    """
    depth = jax.tree.leaves(variables)[0].shape[0]
    whole = depth - depth % segment
    parts = []
    if whole:
        parts.append(
            jax.tree.map(
                lambda leaf: leaf[:whole].reshape((-1, segment, *leaf.shape[1:])), variables
            )
        )
    if whole < depth:
        parts.append(jax.tree.map(lambda leaf: leaf[None, whole:], variables))
    return parts


def differentiable(tree: PyTree) -> list[Array]:
    """Lists the leaves that have cotangents; integers and their float0 cotangents are left out."""
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]


def as_cotangent(tree: PyTree, differentiable: list[Array]) -> PyTree:
    """Puts cotangents in the places of differentiable leaves, float0 in the others."""
    rest = iter(differentiable)
    return jax.tree.map(
        lambda leaf: (
            next(rest)
            if jnp.issubdtype(leaf.dtype, jnp.inexact)
            else np.zeros(leaf.shape, jax.dtypes.float0)
        ),
        tree,
    )
