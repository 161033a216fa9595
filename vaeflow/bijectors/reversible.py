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
        carry, _ = jax.lax.scan(one_step, carry, segment_variables, unroll=unroll)
        return carry, carry[0]

    carry = (x, jnp.zeros(x.shape[: x.ndim - event_ndims], jnp.float32))
    whole, rest = _segments(variables, segment)
    ends = None
    if whole is not None:
        carry, ends = jax.lax.scan(one_segment, carry, whole)
    if rest is not None:
        carry, _ = one_segment(carry, rest)
    return carry, (variables, context, ends, carry[0])


def _backward(step, segment, unroll, event_ndims, residuals, cotangents):
    variables, context, ends, y = residuals
    dy, dlog_det = cotangents

    def one_step(carry, step_variables):
        y, dy, dcontext = carry
        bijector, pull_back = jax.vjp(step, step_variables, context)
        x, dx, dbijector = _invert_and_pull_back(bijector, y, dy, dlog_det)
        dvariables, dstep_context = pull_back(dbijector)
        dcontext = [a + b for a, b in zip(dcontext, _differentiable(dstep_context), strict=True)]
        return (x, dx, dcontext), _differentiable(dvariables)

    def one_segment(carry, inputs):
        end, segment_variables = inputs
        carry, dvariables = jax.lax.scan(
            one_step, (end, *carry), segment_variables, reverse=True, unroll=unroll
        )
        return carry[1:], dvariables

    whole, rest = _segments(variables, segment)
    carry = (dy, [jnp.zeros_like(leaf) for leaf in _differentiable(context)])
    parts = []
    if rest is not None:
        carry, drest = one_segment(carry, (y, rest))
        parts.append(drest)
    if whole is not None:
        carry, dwhole = jax.lax.scan(one_segment, carry, (ends, whole), reverse=True)
        parts.insert(0, [leaf.reshape((-1, *leaf.shape[2:])) for leaf in dwhole])
    dx, dcontext = carry
    dvariables = [jnp.concatenate(leaves) for leaves in zip(*parts, strict=True)]
    return _as_cotangent(variables, dvariables), _as_cotangent(context, dcontext), dx


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
        _, pull_back = jax.vjp(apply, parts[index], x)
        dparts[index], dy = pull_back((dy, dlog_det))
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


def _segments(variables: PyTree, segment: int) -> tuple[PyTree | None, PyTree | None]:
    """Splits stacked leaves into whole segments [count, segment, ...] and a shorter rest."""
    depth = jax.tree.leaves(variables)[0].shape[0]
    count = depth // segment
    whole = rest = None
    if count:
        whole = jax.tree.map(
            lambda leaf: leaf[: count * segment].reshape((count, segment, *leaf.shape[1:])),
            variables,
        )
    if depth % segment:
        rest = jax.tree.map(lambda leaf: leaf[count * segment :], variables)
    return whole, rest


def _differentiable(tree: PyTree) -> list[Array]:
    """Lists the leaves that have cotangents; integers and their float0 cotangents are left out."""
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]


def _as_cotangent(tree: PyTree, differentiable: list[Array]) -> PyTree:
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
