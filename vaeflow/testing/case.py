"""One bijector under test: its maker, its inputs, and its compiled outputs and gradients."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from vaeflow.testing.pytrees import float_leaves, replace_float_leaves

BATCH = 3
"""Number of examples in the batch that a case is evaluated on."""

EDGES = (0.0, 1e-30, -1e-30, 1e3, -1e3, 1e6, -1e6)
"""Inputs at and beyond the edges of what a model usually meets."""


class Outputs(NamedTuple):
    """Outputs of a bijector: forward on one input, inverse on another.

    Attributes:
      y: forward(x), shape ``[*batch, *event_out]``.
      forward_log_det: log|det df/dx| at x, in nats, shape ``[*batch]``.
      x: inverse(y), shape ``[*batch, *event_in]``.
      inverse_log_det: log|det df^-1/dy| at y, in nats, shape ``[*batch]``.
    """

    y: Array
    forward_log_det: Array
    x: Array
    inverse_log_det: Array


class Gradients(NamedTuple):
    """Gradients of the inner product of `Outputs` with weights of the same shapes.

    Attributes:
      parameters: One gradient for each floating-point leaf of the bijector.
      x: Gradient with respect to the input of forward.
      y: Gradient with respect to the input of the inverse.
    """

    parameters: list[Array]
    x: Array
    y: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A bijector under test.

    Everything is sampled from fixed keys, so a case is deterministic. Compiled functions and
    outputs live as long as the case: keep one to run several checks on it.

    Attributes:
      make: ``make(key)``, or ``make(key, context)`` where there is a context; returns the bijector.
        Another key has to give other parameters. It must work under `jax.jit`, since that is
        where models make their bijectors.
      event_shape: Shape of one event that enters forward.
      context_shape: Shape of one context, or None. `make` gets contexts of shape
        ``[*batch, *context_shape]``, whose batch axes broadcast against those of the input.
      inputs: ``inputs(key, shape)`` samples inputs of forward from the inside of its domain.
      edges: Inputs of forward, numbers or arrays that broadcast to an event, at which values and
        gradients have to be finite.
      inverse_edges: The same for the inverse.
      constant: Names of floating-point leaves that may have no gradient, as the messages give
        them, or patterns of names such as ``"*.sign"``.
      tolerance: Absolute and relative tolerance of comparisons between values.
    """

    make: Callable[..., distrax.Bijector]
    event_shape: tuple[int, ...]
    context_shape: tuple[int, ...] | None = None
    inputs: Callable[[Array, tuple[int, ...]], Array] = jax.random.normal
    edges: Sequence[ArrayLike] = EDGES
    inverse_edges: Sequence[ArrayLike] = EDGES
    constant: Sequence[str] = ()
    tolerance: float = 1e-4
    traces: list[tuple[int, ...]] = dataclasses.field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "event_shape", tuple(self.event_shape))

    # Bijectors and inputs.

    def bijector(self, seed: int = 0, context: Array | None = None) -> distrax.Bijector:
        """Makes the bijector whose parameters have this number, as users without jit do."""
        return self.make(*self._arguments(seed, context))

    def compiled_bijector(self, seed: int = 0, context: Array | None = None) -> distrax.Bijector:
        """Makes the same bijector by a function that is compiled once."""
        return self._make(*self._arguments(seed, context))

    def _arguments(self, seed: int, context: Array | None) -> tuple[Array, ...]:
        key = jax.random.key(seed)
        return (key,) if self.context_shape is None else (key, context)

    @functools.cached_property
    def _make(self) -> Callable[..., distrax.Bijector]:
        return jax.jit(self.make)

    @functools.cached_property
    def contexts(self) -> Float[Array, "batch *context"] | None:
        """One context for each example, or None."""
        if self.context_shape is None:
            return None
        return jax.random.normal(jax.random.key(101), (BATCH, *self.context_shape))

    @functools.cached_property
    def batched(self) -> distrax.Bijector:
        """The bijector, given the contexts of the whole batch."""
        return self.compiled_bijector(0, self.contexts)

    @functools.cached_property
    def singles(self) -> list[distrax.Bijector]:
        """The same bijector, given the context of one example at a time."""
        if self.context_shape is None:
            return [self.batched] * BATCH
        return [self.compiled_bijector(0, context) for context in self.contexts]

    @functools.cached_property
    def x(self) -> Float[Array, "batch *event_in"]:
        """Inputs of forward."""
        return self.inputs(jax.random.key(102), (BATCH, *self.event_shape))

    @functools.cached_property
    def y(self) -> Float[Array, "batch *event_out"]:
        """Inputs of the inverse: where forward takes other inputs than `x`."""
        others = self.inputs(jax.random.key(103), (BATCH, *self.event_shape))
        stand_in = jnp.zeros((BATCH, *self.event_shape_out))
        return self.evaluate(self.batched, others, stand_in)[0].y

    @functools.cached_property
    def event_shape_out(self) -> tuple[int, ...]:
        """Shape of one event that leaves forward."""
        example = jax.ShapeDtypeStruct(self.event_shape, jnp.float32)
        return jax.eval_shape(forward, self.singles[0], example)[0].shape

    # Outputs and gradients.

    @functools.cached_property
    def weights(self) -> Outputs:
        """Fixed random weights of the outputs for a batch.

        Random, so that no two errors cancel and no symmetry of a bijector makes a gradient vanish.
        """
        shapes = (self.event_shape_out, (), self.event_shape, ())
        keys = jax.random.split(jax.random.key(104), len(shapes))
        return Outputs(
            *(
                jax.random.normal(key, (BATCH, *shape))
                for key, shape in zip(keys, shapes, strict=True)
            )
        )

    @functools.cached_property
    def outputs(self) -> Outputs:
        """The outputs at `x` and `y`."""
        return self.evaluate(self.batched, self.x, self.y)[0]

    @functools.cached_property
    def gradients(self) -> Gradients:
        """The gradients at `x` and `y`, with `weights`."""
        return self.evaluate(self.batched, self.x, self.y)[1]

    @functools.cached_property
    def jacobians(self) -> tuple[Float[Array, "batch out in"], Float[Array, "batch in out"]]:
        """Jacobians of forward at `x` and of the inverse at `y`.

        A row of all of them at a time, with weights that are one for an entry of the output: in
        reverse mode, since a bijector with a custom VJP has no forward mode.
        """
        zeros = jax.tree.map(jnp.zeros_like, self.weights)
        size = self.x[0].size
        to_y, to_x = [], []
        for one in jnp.eye(size):
            weights = zeros._replace(
                y=jnp.broadcast_to(one.reshape(self.event_shape_out), zeros.y.shape),
                x=jnp.broadcast_to(one.reshape(self.event_shape), zeros.x.shape),
            )
            gradients = self.evaluate(self.batched, self.x, self.y, weights)[1]
            to_y.append(gradients.x.reshape(BATCH, size))
            to_x.append(gradients.y.reshape(BATCH, size))
        return jnp.stack(to_y, axis=1), jnp.stack(to_x, axis=1)

    def evaluate(
        self, bijector: distrax.Bijector, x: Array, y: Array, weights: Outputs | None = None
    ) -> tuple[Outputs, Gradients]:
        """Computes outputs and gradients for a batch, by a function that is compiled once.

        Args:
          bijector: One of those that `make` returns, for the whole batch.
          x: Inputs of forward, shape ``[batch, *event_in]``.
          y: Inputs of the inverse, shape ``[batch, *event_out]``.
          weights: Weights of the outputs whose gradients are computed; `weights` if None.
        """
        return self._evaluate(bijector, x, y, self.weights if weights is None else weights)

    @functools.cached_property
    def _evaluate(self) -> Callable[..., tuple[Outputs, Gradients]]:
        # Each trace is recorded in `traces`.
        @jax.jit
        def evaluate(
            bijector: distrax.Bijector, x: Array, y: Array, weights: Outputs
        ) -> tuple[Outputs, Gradients]:
            self.traces.append(x.shape)

            def weighted_sum(parameters: list[Array], x: Array, y: Array) -> tuple[Array, Outputs]:
                outputs = both_ways(replace_float_leaves(bijector, parameters), x, y)
                terms = [jnp.sum(w * values) for w, values in zip(weights, outputs, strict=True)]
                return sum(terms), outputs

            gradient = jax.grad(weighted_sum, argnums=(0, 1, 2), has_aux=True)
            (parameters, x, y), outputs = gradient(float_leaves(bijector), x, y)
            return outputs, Gradients(parameters, x, y)

        return evaluate

    @functools.cached_property
    def evaluate_single(self) -> Callable[[distrax.Bijector, Array, Array], Outputs]:
        """``evaluate_single(bijector, x, y)``: outputs for one example, compiled once."""
        return jax.jit(both_ways)


def forward(bijector: distrax.Bijector, x: Array) -> tuple[Array, Array]:
    """Applies forward."""
    return bijector.forward_and_log_det(x)


def inverse(bijector: distrax.Bijector, y: Array) -> tuple[Array, Array]:
    """Applies the inverse."""
    return bijector.inverse_and_log_det(y)


def both_ways(bijector: distrax.Bijector, x: Array, y: Array) -> Outputs:
    """Applies forward to `x` and the inverse to `y`."""
    return Outputs(*forward(bijector, x), *inverse(bijector, y))
