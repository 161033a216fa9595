"""Residual bijectors y = x + g(x), with a contraction g.

Inverses are fixed points of x <- y - g(x); log|det(I + dg/dx)| is exact, or estimated without bias
by a power series. Source: Behrmann, Grathwohl, Chen, Duvenaud & Jacobsen 2019, "Invertible residual
networks"; Chen, Behrmann, Duvenaud & Jacobsen 2019, "Residual flows".
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.arrays import check_event_shape, matmul, sum_event
from vaeflow._util.derivatives import CustomJVP
from vaeflow.bijectors.base import Bijector, Conditioner
from vaeflow.bijectors.numerical import tolerance_in
from vaeflow.typing import ContractiveNetwork

PyTree = Any

LARGEST_ITERATIONS = 2000
"""Largest number of iterations of a solution: 1e-6 takes 131 for a Lipschitz constant of 0.9, and
684 for 0.98; 1e-12, in float64, twice as many."""

SURE_TERMS = 4
"""Number of terms of the power series that are always computed."""

CONTINUATION = 0.7
"""Probability that another term follows, after the first `SURE_TERMS`."""

LARGEST_TERMS = 44
"""Largest number of terms of the power series."""


@functools.partial(CustomJVP, nondiff_argnums=(2, 3))
def solve_residual(
    function: Callable[[Array], Array],
    target: Float[Array, "*batch_and_event"],
    event_ndims: int = 1,
    tolerance: float = 1e-6,
) -> Float[Array, "*batch_and_event"]:
    """Solves x + g(x) = target for x, where g has a Lipschitz constant below one.

    Iterates x <- target - g(x) from x = target. An example is done, and stays fixed from then on,
    when no dimension changes by more than ``tolerance (1 + max(|target|, |x|))``, with the maximum
    over its dimensions; the error is then at most 1 / (1 - lipschitz) times that change. Once a
    step isn't shorter than the one before, rounding errors dominate: further steps of that example
    are halved, so that they don't oscillate around the solution, and once one again isn't shorter,
    ten times the tolerance is accepted. An example that isn't done within a bounded number of
    iterations, or isn't finite, is returned as NaN, so that a failure can't be mistaken for a
    solution; one that isn't finite doesn't delay the others. In float64 the square of the tolerance
    counts.

    Differentiable by the implicit function theorem: the change dx of the solution solves
    dx + (dg/dx) dx = dtarget, and the cotangent w of the target w + (dg/dx)^T w = dx, by the same
    iteration to the same relative tolerance, with the same NaN where it fails.

    Source: Behrmann, Grathwohl, Chen, Duvenaud & Jacobsen 2019, "Invertible residual networks",
    algorithm 1.

    Args:
      function: The map g as a pytree, such as a `Conditioner`; each example's result depends
        only on that example.
      target: Values to reach.
      event_ndims: Number of trailing axes that make an event.
      tolerance: Relative size of an acceptable change.

    Returns:
      The solution, of the shape of `target`, float32 or wider.
    """
    target = target.astype(jnp.promote_types(target.dtype, jnp.float32))
    return _iterate(lambda x: target - function(x), target, 1.0, event_ndims, tolerance)


@solve_residual.defjvp
def _solve_residual_jvp(event_ndims, tolerance, primals, tangents):
    function, target = primals
    x = solve_residual(function, target, event_ndims, tolerance)
    dfunction, dtarget = tangents[0], tangents[1].astype(x.dtype)
    return x, _residual_change(event_ndims, tolerance, function, x, dfunction, dtarget)


# Differentiates the function in the backward pass, rather than storing its intermediate values.
@functools.partial(jax.checkpoint, prevent_cse=False, static_argnums=(0, 1))
def _residual_change(event_ndims, tolerance, function, x, dfunction, dtarget):
    _, push_forward = jax.linearize(function, x)
    pull_back = jax.linear_transpose(push_forward, x)
    _, dvalue = jax.jvp(lambda function: function(x), (function,), (dfunction,))

    def solve(_, right):
        return _iterate(lambda v: right - push_forward(v), right, 0.0, event_ndims, tolerance)

    def solve_transposed(_, right):
        return _iterate(lambda w: right - pull_back(w)[0], right, 0.0, event_ndims, tolerance)

    return jax.lax.custom_linear_solve(
        lambda v: v + push_forward(v), dtarget - dvalue, solve, solve_transposed
    )


def _iterate(
    contraction: Callable[[Array], Array],
    start: Array,
    least: float,
    event_ndims: int,
    tolerance: float,
) -> Array:
    """Iterates a contraction until changes are small relative to ``least + max(|start|, |z|)``."""
    axes = tuple(range(start.ndim - event_ndims, start.ndim))
    tolerance = tolerance_in(start.dtype, tolerance)

    def size(z):
        return jnp.max(jnp.abs(z), axis=axes, keepdims=True, initial=0)

    def refine(state):
        z, length, halved, done, failed, count = state
        change = contraction(z) - z
        # An infinite change would pass an infinite bound.
        finite = jnp.isfinite(size(change))
        previous, length = length, jnp.sqrt(jnp.sum(change**2, axis=axes, keepdims=True))
        stalled = length >= previous
        allowed = jnp.where(halved & stalled, 10 * tolerance, tolerance)
        halved = halved | stalled
        allowed = allowed * (least + jnp.maximum(size(start), size(z)))
        z = jnp.where(done | failed, z, z + jnp.where(halved, 0.5, 1.0) * change)
        done = done | (finite & (size(change) <= allowed))
        return z, length, halved, done, failed | (~finite & ~done), count + 1

    def unfinished(state):
        _, _, _, done, failed, count = state
        return ~jnp.all(done | failed) & (count < LARGEST_ITERATIONS)

    none = jnp.zeros_like(size(start), bool)
    endless = jnp.full_like(size(start), jnp.inf)
    state = (start, endless, none, none, none, 0)
    z, _, _, done, failed, _ = jax.lax.while_loop(unfinished, refine, state)
    return jnp.where(done & ~failed, z, jnp.nan)


def exact_log_det(
    function: Callable[[Array], Array], x: Float[Array, "*batch_and_event"], event_ndims: int = 1
) -> Float[Array, "*batch"]:
    """Computes log|det(I + dg/dx)| from the full Jacobian, by one backward pass for each row.

    It is NaN where a leading principal minor of I + dg/dx isn't positive, which doesn't happen for
    a contraction.

    Args:
      function: The map g; each example's result depends only on that example.
      x: Where to differentiate.
      event_ndims: Number of trailing axes that make an event.
    """
    batch, event = x.shape[: x.ndim - event_ndims], x.shape[x.ndim - event_ndims :]
    size = math.prod(event)
    identity = jnp.eye(size, dtype=x.dtype)
    _, pull_back = jax.vjp(function, x)

    def row(direction: Array) -> Array:
        cotangent = jnp.broadcast_to(direction.reshape(event), x.shape)
        return pull_back(cotangent)[0].reshape((*batch, size))

    jacobian = jax.vmap(row, out_axes=-2)(identity)
    return _log_determinant(identity + jacobian)


def _log_determinant(matrix: Float[Array, "*batch row column"]) -> Float[Array, "*batch"]:
    """Computes log det A, where the symmetric part of A is positive definite.

    By elimination without pivoting, one row of all matrices at a time: pivots are positive and
    rounding errors stay small where A = I + J with ||J|| < 1, since x . A x >= (1 - ||J||) ||x||^2
    also holds for the remaining block after each step. Libraries factor one small matrix after
    another, and take twenty times as long for the matrices of a batch.

    Source: Golub & Van Loan 1979, "Unsymmetric positive definite linear systems".
    """
    return _eliminate(matrix)[0]


@CustomJVP
def _eliminate(matrix: Array) -> tuple[Array, Array]:
    """Computes log det A and the inverse of A by in-place Gauss-Jordan elimination."""
    size = matrix.shape[-1]

    def step(index, state):
        log_det, matrix = state
        row = jax.lax.dynamic_slice_in_dim(matrix, index, 1, axis=-2)
        column = jax.lax.dynamic_slice_in_dim(matrix, index, 1, axis=-1)
        pivot = jax.lax.dynamic_slice_in_dim(row, index, 1, axis=-1)
        unit = (jnp.arange(size) == index).astype(matrix.dtype)
        matrix = matrix - (column - unit[:, None]) * ((row + unit) / pivot)
        return log_det + jnp.log(pivot[..., 0, 0]), matrix

    start = jnp.zeros(matrix.shape[:-2], matrix.dtype)
    return jax.lax.fori_loop(0, size, step, (start, matrix))


@_eliminate.defjvp
def _eliminate_jvp(primals, tangents):
    (matrix,), (change,) = primals, tangents
    log_det, inverse = _eliminate(matrix)
    dlog_det = jnp.sum(jnp.swapaxes(inverse, -1, -2) * change, axis=(-2, -1))
    return (log_det, inverse), (dlog_det, -matmul(matmul(inverse, change), inverse))


@functools.partial(CustomJVP, nondiff_argnums=(4,))
def estimated_log_det(
    function: Callable[[Array], Array],
    x: Float[Array, "*batch_and_event"],
    probes: Float[Array, "probe *batch_and_event"],
    roulette: Float[Array, ""],
    event_ndims: int = 1,
) -> Float[Array, "*batch"]:
    """Estimates log|det(I + J)|, J = dg/dx, by a few vector-Jacobian products.

    log|det(I + J)| = sum over k of (-1)^(k+1) tr(J^k) / k, where tr(J^k) is estimated by v^T J^k v
    with probes v, and the series by its first terms: `SURE_TERMS`, and then j more with probability
    CONTINUATION^j, each divided by the probability that it is reached. Its expectation is
    the sum of the first `LARGEST_TERMS` terms, whose truncation error is at most
    D r^45 / (45 (1 - r)) for D dimensions, if the eigenvalues of J are at most r in absolute value:
    4e-7 D for r = 0.75, and 2e-3 D for 0.9. With r > 0.83 rare long series dominate the variance.

    The gradient isn't that of the estimate but another estimate, unbiased up to the same
    truncation, with the same probes and the same number of terms:
    sum over k of (-1)^k v^T J^k dJ v, whose memory doesn't grow with the terms. Second derivatives
    are those of that estimate, in forward mode over either.

    Source: Chen, Behrmann, Duvenaud & Jacobsen 2019, "Residual flows for invertible generative
    modeling", equations 6 and 8.

    Args:
      function: The map g as a pytree, such as a `Conditioner`; each example's result depends
        only on that example.
      x: Where to differentiate.
      probes: Noise with mean zero, variance one and uncorrelated dimensions, for each example.
      roulette: A uniform sample on [0, 1), which determines the number of terms.
      event_ndims: Number of trailing axes that make an event.
    """
    return _estimate(function, x, probes, roulette, event_ndims)[0]


def _estimate(function, x, probes, roulette, event_ndims):
    _, pull_back = jax.vjp(function, x)
    pull_back = jax.vmap(pull_back)
    further = jnp.minimum(jnp.log(roulette) / math.log(CONTINUATION), LARGEST_TERMS - SURE_TERMS)

    def add(index, state):
        # The vectors are (J^T)^index v.
        vectors, signed, log_det, series = state
        signed = -signed / jnp.where(index < SURE_TERMS, 1, CONTINUATION)
        series = series + signed * vectors
        (vectors,) = pull_back(vectors)
        trace = jnp.mean(sum_event(vectors * probes, event_ndims), axis=0)
        return vectors, signed, log_det + signed / (index + 1) * trace, series

    log_det = jnp.zeros(x.shape[: x.ndim - event_ndims], x.dtype)
    start = (probes, -jnp.ones((), x.dtype), log_det, jnp.zeros_like(probes))
    terms = SURE_TERMS + further.astype(jnp.int32)
    _, _, log_det, series = jax.lax.fori_loop(0, terms, add, start)
    return log_det, series


@estimated_log_det.defjvp
def _estimated_log_det_jvp(event_ndims, primals, tangents):
    function, x, probes, _ = primals
    dfunction, dx, _, _ = tangents
    log_det, series = _estimate(*primals, event_ndims)
    return log_det, _change_of_traces(event_ndims, function, x, probes, series, dfunction, dx)


# Differentiates the function in the backward pass, rather than storing its intermediate values.
@functools.partial(jax.checkpoint, prevent_cse=False, static_argnums=0)
def _change_of_traces(event_ndims, function, x, probes, series, dfunction, dx):
    def traces(function, x):
        _, pull_back = jax.vjp(lambda x: function(x), x)
        (vectors,) = jax.vmap(pull_back)(series)
        return jnp.mean(sum_event(vectors * probes, event_ndims), axis=0)

    return jax.jvp(traces, (function, x), (dfunction, dx))[1]


class Residual(Bijector):
    """Residual map: y = x + g(x), with Lip(g) < 1.

    Forward is the cheap direction: one pass of the network. Inverse iterates x <- y - g(x) to a
    relative change of `tolerance`, as `solve_residual` does: differentiable by the implicit
    function theorem, and NaN for an example whose iteration doesn't converge. A density model
    therefore uses the residual map from data to noise: the inverse of this bijector is its flow.

    log|det dy/dx| = log|det(I + dg/dx)| is exact, from as many vector-Jacobian products as there
    are dimensions. Given `probes` and `roulette` it is estimated by a power series instead, by
    about six products for each probe on average, whatever the number of dimensions; see
    `estimated_log_det` for the method and its error. Both directions compute the same estimate from
    the same random numbers.

    Shapes: ``[*batch, *event]`` both ways.

    Source: Behrmann, Grathwohl, Chen, Duvenaud & Jacobsen 2019, "Invertible residual networks";
    Chen, Behrmann, Duvenaud & Jacobsen 2019, "Residual flows for invertible generative modeling".
    """

    static_fields = ("tolerance",)

    def __init__(
        self,
        network: Conditioner,
        probes: Float[Array, "probe *batch_and_event"] | None = None,
        roulette: Float[Array, ""] | None = None,
        tolerance: float = 1e-6,
    ):
        """Builds the map.

        Args:
          network: The contraction g; its module is a `vaeflow.typing.ContractiveNetwork`.
          probes: Noise whose entries have mean zero, variance one and no correlations, with batch
            axes that broadcast to those of the input; None for exact log-determinants.
          roulette: A draw from the uniform distribution on [0, 1), given with probes.
          tolerance: Relative size of an acceptable change of an iteration.

        Raises:
          ValueError: If one of `probes` and `roulette` is given without the other.
        """
        super().__init__(event_ndims_in=network.event_ndims)
        if (probes is None) != (roulette is None):
            raise ValueError(
                "probes and roulette must be given together, "
                f"got {'probes' if roulette is None else 'roulette'} alone"
            )
        self.network = network
        self.probes = probes
        self.roulette = roulette
        self.tolerance = tolerance

    def _forward(self, x):
        contraction, x = self._contraction(), self._prepared(x)
        return x + contraction(x), self._log_det(contraction, x)

    def _inverse(self, y):
        contraction, y = self._contraction(), self._prepared(y)
        x = solve_residual(contraction, y, self.event_ndims_in, self.tolerance)
        # A linear network has a finite Jacobian even where there is no solution.
        events = tuple(range(x.ndim - self.event_ndims_in, x.ndim))
        unsolved = jnp.any(jnp.isnan(x), axis=events)
        return x, jnp.where(unsolved, jnp.nan, -self._log_det(contraction, x))

    def _prepared(self, x: Array) -> Array:
        check_event_shape(self.name, x.shape, (self.network.module.features,))
        # As wide as the parameters and the context: iterations keep one type.
        leaves = jax.tree.leaves((self.network.variables, self.network.context))
        wide = [leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
        return x.astype(jnp.result_type(x.dtype, jnp.float32, *wide))

    def _contraction(self) -> Conditioner:
        network = self.network
        return dataclasses.replace(
            network,
            module=_Normalized(network.module),
            variables=network.module.normalized(network.variables),
        )

    def _log_det(self, contraction: Conditioner, x: Array) -> Array:
        if self.probes is None:
            return exact_log_det(contraction, x, self.event_ndims_in)
        shape = self.probes.shape
        missing = x.ndim + 1 - len(shape)
        probes = self.probes.reshape((shape[0], *(1,) * missing, *shape[1:]))
        try:
            probes = jnp.broadcast_to(probes, (shape[0], *x.shape))
        except ValueError:
            raise ValueError(
                f"{self.name}: probes of shape {shape} have axes after the first that don't "
                f"broadcast to those of the input of shape {x.shape}"
            ) from None
        return estimated_log_det(
            contraction, x, probes.astype(x.dtype), self.roulette, self.event_ndims_in
        )


@dataclasses.dataclass(frozen=True)
class _Normalized:
    """A normalised network, as a `Conditioner` applies it."""

    network: ContractiveNetwork

    def apply(self, normalized: PyTree, x: Array, context: Array | None) -> Array:
        return self.network.apply_normalized(normalized, x, context)
