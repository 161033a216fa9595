"""Numerical inverses of monotone maps: safeguarded Newton iteration, one search per dimension.

Gradients come from the implicit function theorem, and a search that fails returns NaN.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.derivatives import CustomJVP
from vaeflow.bijectors.base import Bijector

PyTree = Any

LARGEST_DOUBLINGS = 100
"""Largest number of doublings of the bracket."""

LARGEST_ITERATIONS = 100
"""Largest number of Newton or bisection steps inside the bracket."""


def tolerance_in(dtype: Any, tolerance: float) -> float:
    """Returns the tolerance of a type: it is stated for float32, and squared in float64."""
    return tolerance**2 if dtype == jnp.float64 else tolerance


@functools.partial(CustomJVP, nondiff_argnums=(0, 3))
def solve_monotone(
    function: Callable[[PyTree, Array], Array],
    parameters: PyTree,
    target: Float[Array, "*shape"],
    tolerance: float = 1e-6,
) -> Float[Array, "*shape"]:
    """Solves function(parameters, x) = target for x, elementwise.

    Newton's method, safeguarded by bisection inside a bracket that grows from the target until it
    contains a sign change. An element is done when the residual is at most
    ``tolerance (1 + |target|)``, or when its bracket has shrunk to neighbouring numbers around the
    sign change. An element that isn't done within a bounded number of steps is returned as NaN, so
    that a failure can't be mistaken for a solution. In float64 the square of the tolerance counts.

    Differentiable by the implicit function theorem:
    dx = (dtarget - d function/d parameters . dparameters) / (d function/dx).

    Args:
      function: Hashable, elementwise and strictly monotone in each element of x.
      parameters: Pytree that the function depends on.
      target: Values to reach.
      tolerance: Relative size of an acceptable residual.

    Returns:
      The solution, of the shape of `target`, float32 or wider.
    """
    target = target.astype(jnp.promote_types(target.dtype, jnp.float32))
    allowed = tolerance_in(target.dtype, tolerance)

    def value_and_slope(x):
        value, slope = jax.jvp(lambda x: function(parameters, x), (x,), (jnp.ones_like(x),))
        return value - target, slope

    def residual(x):
        return function(parameters, x) - target

    def is_bracketed(lower, upper):
        return residual(lower) * residual(upper) <= 0

    # Both loops carry what they have decided. A decision that was computed again might be rounded
    # the other way: compilers copy computations into each place that uses them.
    def spread(state):
        lower, upper, bracketed, width, count = state
        lower = jnp.where(bracketed, lower, lower - width)
        upper = jnp.where(bracketed, upper, upper + width)
        return lower, upper, is_bracketed(lower, upper), 2 * width, count + 1

    def not_bracketed(state):
        _, _, bracketed, _, count = state
        return ~jnp.all(bracketed) & (count < LARGEST_DOUBLINGS)

    one = jnp.ones_like(target)
    lower, upper = target - one, target + one
    lower, upper, bracketed, _, _ = jax.lax.while_loop(
        not_bracketed, spread, (lower, upper, is_bracketed(lower, upper), one, 0)
    )
    direction = jnp.where(residual(upper) >= residual(lower), one, -one)

    def is_done(x, value, lower, upper):
        exhausted = ((x <= lower) | (x >= upper)) & (jnp.nextafter(lower, jnp.inf) >= upper)
        return (jnp.abs(value) <= allowed * (1 + jnp.abs(target))) | exhausted

    def refine(state):
        x, value, slope, lower, upper, done, count = state
        above = value * direction > 0
        upper = jnp.where(done | ~above, upper, x)
        lower = jnp.where(done | above, lower, x)
        newton = x - value / slope
        middle = lower / 2 + upper / 2
        # Every third step bisects: Newton's steps alone may approach one end ever more slowly.
        inside = (newton > lower) & (newton < upper) & (count % 3 != 2)
        x = jnp.where(done, x, jnp.where(inside, newton, middle))
        value, slope = value_and_slope(x)
        return x, value, slope, lower, upper, done | is_done(x, value, lower, upper), count + 1

    def not_done(state):
        *_, done, count = state
        return ~jnp.all(done) & (count < LARGEST_ITERATIONS)

    # A value that isn't known yet: the first step bisects, and leaves the bracket as it is.
    unknown = jnp.full_like(target, jnp.nan)
    undone = jnp.zeros(target.shape, bool)
    state = (lower, unknown, one, lower, upper, undone, -1)
    x, *_, done, _ = jax.lax.while_loop(not_done, refine, state)
    return jnp.where(done & bracketed, x, jnp.nan)


@solve_monotone.defjvp
def _solve_monotone_jvp(function, tolerance, primals, tangents):
    parameters, target = primals
    dparameters, dtarget = tangents
    x = solve_monotone(function, parameters, target, tolerance)
    return x, _implicit_change(function, parameters, x, dparameters, dtarget.astype(x.dtype))


# Differentiates the function in the backward pass, rather than storing its intermediate values.
@functools.partial(jax.checkpoint, prevent_cse=False, static_argnums=0)
def _implicit_change(function, parameters, x, dparameters, dtarget):
    _, slope = jax.jvp(lambda x: function(parameters, x), (x,), (jnp.ones_like(x),))
    _, dvalue = jax.jvp(lambda parameters: function(parameters, x), (parameters,), (dparameters,))
    return (dtarget - dvalue) / slope


class NumericalInverse(Bijector):
    """An elementwise monotone bijector with a numerical inverse.

    Forward is that of the wrapped bijector. Inverse solves forward(x) = y for each dimension, by
    `solve_monotone`: to a relative residual of `tolerance`, differentiable in y and in the
    parameters, and NaN where the search fails. Forward is the cheap direction.

    Shapes: ``[*batch, *event]`` both ways; dimension i of y depends only on dimension i of x.
    """

    static_fields = ("tolerance",)

    def __init__(self, bijector: distrax.Bijector, tolerance: float = 1e-6):
        """Wraps a bijector.

        Args:
          bijector: Strictly monotone in each dimension on the whole real line; only its forward
            direction is used.
          tolerance: Relative size of an acceptable residual.

        Raises:
          ValueError: If the bijector changes the rank of its events.
        """
        if bijector.event_ndims_in != bijector.event_ndims_out:
            raise ValueError(
                f"bijector must keep the rank of its events, but {bijector.name} maps rank "
                f"{bijector.event_ndims_in} to rank {bijector.event_ndims_out}"
            )
        super().__init__(bijector.event_ndims_in)
        self.bijector = bijector
        self.tolerance = tolerance

    def _forward(self, x):
        return self.bijector.forward_and_log_det(x)

    def _inverse(self, y):
        x = solve_monotone(_apply_forward, self.bijector, y, self.tolerance)
        return x, -self.bijector.forward_log_det_jacobian(x)


def _apply_forward(bijector: distrax.Bijector, x: Array) -> Array:
    return bijector.forward(x)
