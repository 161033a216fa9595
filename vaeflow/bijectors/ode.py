"""Adaptive solver of ordinary differential equations, with a step size for each example.

Tsitouras 2011's explicit Runge-Kutta method of order 5, by diffrax forward; gradients are those of
the steps taken, recomputed from the stored states.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Hashable
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from vaeflow._util.derivatives import CustomJVP
from vaeflow.bijectors.reversible import as_cotangent, differentiable

PyTree = Any

FIRST_STEP = 0.1
"""Length of the first step that is tried."""

SMALLEST_STEP = 1e-6
"""A row that needs a shorter step has failed: float32 barely resolves time at this length."""


class Field(Hashable, Protocol):
    """The right-hand side of ds/dt = field(t, s): a hashable function, such as a frozen dataclass.

    A row of the result depends only on the same row of its arguments.
    """

    def __call__(
        self,
        shared: PyTree,
        rows: PyTree,
        time: Float[Array, " row"],
        state: Float[Array, "row size"],
    ) -> Float[Array, "row size"]:
        """Computes ds/dt from the parameters shared by all rows, those of each row, t and s."""


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Tolerances of a solution.

    Attributes:
      rtol: Error allowed in a step, relative to the absolute value of the state.
      atol: Absolute error allowed in a step, in addition.
      max_steps: Largest number of attempted steps.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 256

    def __post_init__(self) -> None:
        for name in ("rtol", "atol", "max_steps"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


def diffrax(name: str) -> ModuleType:
    """Imports diffrax, an optional package.

    Args:
      name: Name of the class that needs it, for the message.

    Raises:
      ValueError: If it isn't installed.
    """
    try:
        import diffrax
    except ImportError as error:
        from vaeflow._util.files import missing_package

        raise missing_package(name, "diffrax", "continuous") from error
    return diffrax


def solve_rows(
    field: Callable[[PyTree, PyTree, Array, Array], Array],
    accuracy: Accuracy,
    shared: PyTree,
    rows: PyTree,
    start: Float[Array, "row size"],
) -> Float[Array, "row size"]:
    """Solves ds/dt = field(t, s) from t = 0 to t = 1, each row with its own steps.

    By the explicit Runge-Kutta method of order 5 of Tsitouras 2011. Steps are chosen for each row
    so that the root mean square over its dimensions of error / (atol + rtol |s|) stays below one. A
    batch takes as many steps as its slowest row. A row is NaN, without effect on the others, if its
    start or its parameters aren't finite, or it isn't done within ``accuracy.max_steps``.

    Derivatives are those of the steps that were taken, whose lengths count as constants. The states
    between steps are stored, ``[row, max_steps + 1, size]``; the stages inside a step are
    recomputed, for all rows at once. Second derivatives go through all `max_steps` steps.

    Args:
      field: A `Field`.
      accuracy: Tolerances and the largest number of steps.
      shared: Parameters of all rows; leaves that aren't floats have no derivative.
      rows: Parameters with the rows along the first axis of every leaf, likewise.
      start: States at t = 0.

    Returns:
      States at t = 1.
    """
    finite = [jnp.isfinite(leaf) for leaf in (*differentiable(rows), start)]
    finite = [jnp.all(leaf, axis=tuple(range(1, leaf.ndim))) for leaf in finite]
    sound = functools.reduce(jnp.logical_and, finite)

    def masked(leaf: Array) -> Array:
        return jnp.where(jnp.expand_dims(sound, tuple(range(1, leaf.ndim))), leaf, 0)

    rows, start = jax.tree.map(masked, (rows, start))
    end, succeeded = _solve(field, accuracy, shared, rows, start)
    return jnp.where((sound & succeeded)[:, None], end, jnp.nan)


@functools.partial(CustomJVP, nondiff_argnums=(0, 1))
def _solve(
    field: Field, accuracy: Accuracy, shared: PyTree, rows: PyTree, start: Array
) -> tuple[Array, Bool[Array, " row"]]:
    _, states, succeeded = _integrate(field, accuracy, shared, rows, start, keep=False)
    return states[:, 0], succeeded


@_solve.defjvp
def _solve_jvp(field, accuracy, primals, tangents):
    shared, rows, _ = primals
    steps, succeeded = _steps(field, accuracy, *primals)
    end = jnp.take_along_axis(steps.states, steps.count[:, None, None], axis=1)[:, 0]
    changes = [leaf for tree in tangents for leaf in _changes(tree)]
    dend = _end_change(field, (shared, rows), steps, changes)
    return (end, succeeded), (dend, np.zeros(succeeded.shape, jax.dtypes.float0))


def _changes(tangents: PyTree) -> list[Array]:
    leaves = jax.tree.leaves(tangents)
    return [leaf for leaf in leaves if leaf.dtype != jax.dtypes.float0]


class _Steps(NamedTuple):
    """The steps of each row; those after its last one have length zero.

    Attributes:
      times: Times between steps.
      states: States between steps.
      count: Number of steps of each row.
    """

    times: Float[Array, "row time"]
    states: Float[Array, "row time size"]
    count: Int[Array, " row"]


@functools.partial(CustomJVP, nondiff_argnums=(0, 1))
def _steps(
    field: Field, accuracy: Accuracy, shared: PyTree, rows: PyTree, start: Array
) -> tuple[_Steps, Bool[Array, " row"]]:
    times, states, succeeded = _integrate(field, accuracy, shared, rows, start, keep=True)
    # Times after the last step are infinite. A row that failed counts as one that took no step.
    taken = jnp.isfinite(times) & succeeded[:, None]
    count = jnp.sum(taken[:, 1:], axis=1)
    steps = _Steps(jnp.where(taken, times, 1), jnp.where(taken[..., None], states, 0), count)
    return steps, succeeded


@_steps.defjvp
def _steps_jvp(field, accuracy, primals, tangents):
    shared, rows, _ = primals
    steps, succeeded = _steps(field, accuracy, *primals)
    dshared, drows, dstart = tangents

    def advance(dstate, number):
        dstate = _advance_change(field, (shared, rows), steps, number, (dshared, drows), dstate)
        return dstate, dstate

    numbers = jnp.arange(steps.times.shape[1] - 1)
    _, after = lax.scan(advance, dstart, numbers)
    dstates = jnp.concatenate([dstart[None], after]).swapaxes(0, 1)
    # States are zero after the last step.
    later = jnp.arange(steps.times.shape[1]) > steps.count[:, None]
    dstates = jnp.where(later[..., None], 0, dstates)
    zeros = [np.zeros(leaf.shape, jax.dtypes.float0) for leaf in (steps.count, succeeded)]
    return (steps, succeeded), (_Steps(jnp.zeros_like(steps.times), dstates, zeros[0]), zeros[1])


def _end_change(
    field: Field, parameters: tuple[PyTree, PyTree], steps: _Steps, changes: list[Array]
) -> Array:
    """Computes the change of the end states by those of parameters and start, step by step.

    The change is linear. As the solution of a linear system it can have a transpose of its own: the
    loop backwards, over as many steps as the slowest row took.
    """
    last = steps.times.shape[1] - 1
    taken = jnp.max(steps.count, initial=0)
    # One vector, the change of the end first: all of it is transposed, or nothing.
    flat, unravel = ravel_pytree([jnp.zeros_like(steps.states[:, 0]), *changes])
    num_shared = len(differentiable(parameters[0]))

    def split(vector):
        end, *leaves, start = unravel(vector)
        return end, (leaves[:num_shared], leaves[num_shared:]), start

    def trees(leaves):
        return tuple(as_cotangent(*pair) for pair in zip(parameters, leaves, strict=True))

    def advance(number, dstate, leaves):
        return _advance_change(field, parameters, steps, number, trees(leaves), dstate)

    def system(vector):
        end, leaves, start = split(vector)
        numbers = jnp.arange(last)
        reached, _ = lax.scan(lambda d, number: (advance(number, d, leaves), None), start, numbers)
        return ravel_pytree([end - reached, *itertools.chain(*leaves), start])[0]

    def solve(_, right):
        end, leaves, start = split(right)
        reached = lax.fori_loop(0, taken, lambda n, dstate: advance(n, dstate, leaves), start)
        return ravel_pytree([end + reached, *itertools.chain(*leaves), start])[0]

    def solve_transposed(_, right):
        end, leaves, start = split(right)

        def pull_back_step(carry):
            number, dstate, leaves = carry
            _, pull_back = jax.vjp(
                lambda shared, rows, state: _advance_numbered(
                    field, (shared, rows), steps, number, state
                ),
                *parameters,
                _at(steps.states, number),
            )
            *dparameters, dstate = pull_back(dstate)
            leaves = tuple(
                [a + b for a, b in zip(old, _changes(new), strict=True)]
                for old, new in zip(leaves, dparameters, strict=True)
            )
            return number - 1, dstate, leaves

        zeros = jax.tree.map(jnp.zeros_like, leaves)
        carry = (taken - 1, end, zeros)
        _, dstart, dleaves = lax.while_loop(lambda carry: carry[0] >= 0, pull_back_step, carry)
        leaves = jax.tree.map(jnp.add, leaves, dleaves)
        return ravel_pytree([end, *itertools.chain(*leaves), start + dstart])[0]

    return split(lax.custom_linear_solve(system, flat, solve, solve_transposed))[0]


def _at(values: Array, number: Array) -> Array:
    return lax.dynamic_index_in_dim(values, number, axis=1, keepdims=False)


def _advance_numbered(
    field: Field,
    parameters: tuple[PyTree, PyTree],
    steps: _Steps,
    number: Array,
    state: Float[Array, "row size"],
) -> Float[Array, "row size"]:
    """Takes the step of this number with every row; a row that is done stays as it is."""
    tableau = diffrax("Continuous").Tsit5.tableau
    time, following = _at(steps.times, number), _at(steps.times, number + 1)
    return _advance(field, tableau, *parameters, time, following - time, state)


def _advance_change(
    field: Field,
    parameters: tuple[PyTree, PyTree],
    steps: _Steps,
    number: Array,
    dparameters: tuple[PyTree, PyTree],
    dstate: Float[Array, "row size"],
) -> Float[Array, "row size"]:
    return jax.jvp(
        lambda shared, rows, state: _advance_numbered(field, (shared, rows), steps, number, state),
        (*parameters, _at(steps.states, number)),
        (*dparameters, dstate),
    )[1]


def _integrate(
    field: Field, accuracy: Accuracy, shared: PyTree, rows: PyTree, start: Array, keep: bool
) -> tuple[Array, Array, Array]:
    """Solves each row: times and states after each step, or after the last, and success."""
    solvers = diffrax("Continuous")
    save = solvers.SaveAt(t0=True, steps=True) if keep else solvers.SaveAt(t1=True)
    controller = solvers.PIDController(
        accuracy.rtol, accuracy.atol, dtmin=SMALLEST_STEP, force_dtmin=False, norm=_norm
    )

    def solve(row, state):
        solution = solvers.diffeqsolve(
            solvers.ODETerm(_OneRow(field)),
            solvers.Tsit5(),
            t0=0.0,
            t1=1.0,
            dt0=FIRST_STEP,
            y0=state,
            args=(shared, row),
            saveat=save,
            stepsize_controller=controller,
            max_steps=accuracy.max_steps,
            throw=False,
        )
        # Times have JAX's default float type, which can be wider and widens the states.
        times, states = (leaf.astype(state.dtype) for leaf in (solution.ts, solution.ys))
        return times, states, solvers.is_successful(solution.result)

    return jax.vmap(solve)(rows, start)


@dataclasses.dataclass(frozen=True)
class _OneRow:
    """A field of a single state, as diffrax takes it; equal instances share their traces."""

    field: Field

    def __call__(self, time: Array, state: Array, parameters: tuple[PyTree, PyTree]) -> Array:
        shared, row = parameters
        row = jax.tree.map(lambda leaf: leaf[None], row)
        return self.field(shared, row, time[None], state[None])[0]


def _norm(error: Array) -> Array:
    """The root mean square, with NaN replaced by infinity, so that the step is shortened."""
    size = jnp.sqrt(jnp.mean(error**2))
    return jnp.where(jnp.isnan(size), jnp.inf, size)


def _advance(
    field: Field,
    tableau: Any,
    shared: PyTree,
    rows: PyTree,
    time: Float[Array, " row"],
    duration: Float[Array, " row"],
    state: Float[Array, "row size"],
) -> Float[Array, "row size"]:
    """Takes one step with every row, without the last stage, which only estimates the error."""
    stages = len(tableau.b_sol) - 1
    lower = np.zeros((stages, stages))
    for number, weights in enumerate(tableau.a_lower[: stages - 1], start=1):
        lower[number, :number] = weights
    nodes = np.concatenate([[0.0], tableau.c[: stages - 1]])

    def advanced(weights: Array, slopes: Array) -> Array:
        change = jnp.tensordot(weights, slopes, 1, precision=lax.Precision.HIGHEST)
        return state + duration[:, None] * change

    def stage(slopes, inputs):
        number, weights, node = inputs
        slope = field(shared, rows, time + node * duration, advanced(weights, slopes))
        return slopes.at[number].set(slope), None

    inputs = (jnp.arange(stages), jnp.asarray(lower, state.dtype), jnp.asarray(nodes, state.dtype))
    slopes, _ = lax.scan(stage, jnp.zeros((stages, *state.shape), state.dtype), inputs)
    return advanced(jnp.asarray(tableau.b_sol[:stages], state.dtype), slopes)
