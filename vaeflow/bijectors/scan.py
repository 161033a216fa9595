"""Stacks of equal steps: a `jax.lax.scan` over stacked parameters as one bijector.

Programs don't grow with the number of steps, and `backward` trades memory against recomputation.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Literal, Protocol, get_args

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors.base import Bijector
from vaeflow.bijectors.compose import Inverse
from vaeflow.bijectors.conditioner import CONDITIONED
from vaeflow.bijectors.reversible import reversible_scan

PyTree = Any

Backward = Literal["plain", "remat", "reversible"]
"""How a `Scan` backpropagates."""


class Step(Hashable, Protocol):
    """One step of a `Scan`: a hashable function, such as a frozen dataclass with a call."""

    def __call__(self, variables: PyTree, context: PyTree) -> distrax.Bijector:
        """Builds the bijector of one step from its parameters and the context of all steps."""


class Scan(Bijector):
    """Composes K steps that differ only in their parameters.

    y = f_K(...f_1(x)), where f_k is ``step(variables[k], context)``; log|det dy/dx| is the sum over
    the steps. The steps are compiled once, whatever K. Each direction costs K times that of a step.

    The state between steps is as wide as the widest of x, the parameters, the context and float32,
    whatever type the networks compute in: a loop can't widen it, and it has to be inverted.

    Backpropagation, by `backward`:

    * "plain" stores everything that each step computes.
    * "remat" stores the input of each step and the outputs of its `Conditioner`s, and recomputes
      their hidden layers, which is faster on CPUs than writing and reading them.
    * "reversible" stores the input of every `segment` steps and recovers those between by inverting
      one step after another; a segment that isn't recovered to a relative error of 1e-5 is
      recomputed from its start. It has no forward-mode derivatives.

    Shapes: every leaf of `variables` is ``[K, ...]``; leaves of `context` are shared by all steps.

    Source of backpropagation by inversion: Gomez, Ren, Urtasun & Grosse 2017, "The reversible
    residual network".
    """

    static_fields = ("step", "backward", "segment", "unroll")

    def __init__(
        self,
        step: Callable[[PyTree, PyTree], distrax.Bijector],
        variables: PyTree,
        context: PyTree = None,
        *,
        event_ndims: int = 1,
        backward: Backward = "plain",
        segment: int = 4,
        unroll: bool = False,
    ):
        """Builds the stack.

        Args:
          step: Hashable function from the parameters of one step and the context to a bijector
            whose events keep their shape.
          variables: Parameters of all steps, stacked along the first axis of every leaf.
          context: Any pytree that all steps share, or None.
          event_ndims: Number of trailing axes that make an event.
          backward: How to backpropagate: "plain", "remat" or "reversible".
          segment: With "reversible", the number of steps between two stored states.
          unroll: Whether to compile the steps one by one rather than as a loop.

        Raises:
          ValueError: If the leaves of `variables` differ in K or there are none, if `segment` isn't
            positive, or `backward` isn't one of the three.
        """
        super().__init__(event_ndims_in=event_ndims)
        if backward not in get_args(Backward):
            raise ValueError(f"backward must be one of {get_args(Backward)}, got {backward!r}")
        if segment < 1:
            raise ValueError(f"segment must be at least 1, got {segment}")
        _check_stacked(variables)
        self.step = step
        self.variables = variables
        self.context = context
        self.backward = backward
        self.segment = segment
        self.unroll = unroll

    def _run(self, x, inverse: bool):
        x = self._widened(x)
        step = _InverseStep(self.step) if inverse else self.step
        if self.backward == "reversible":
            variables = self.variables
            if inverse:
                variables = jax.tree.map(lambda leaf: jnp.flip(leaf, axis=0), variables)
            return reversible_scan(
                step, self.segment, self.unroll, self.event_ndims_in, variables, self.context, x
            )

        def body(carry, variables):
            x, log_det = carry
            y, step_log_det = step(variables, self.context).forward_and_log_det(x)
            return (y, log_det + step_log_det), None

        if self.backward == "remat":
            # Save conditioners' outputs (small, expensive), recompute hidden layers (large, cheap).
            policy = jax.checkpoint_policies.save_only_these_names(CONDITIONED)
            body = jax.checkpoint(body, prevent_cse=self.unroll, policy=policy)
        start = (x, jnp.zeros(x.shape[: x.ndim - self.event_ndims_in], x.dtype))
        return jax.lax.scan(body, start, self.variables, reverse=inverse, unroll=self.unroll)[0]

    def states(
        self, x: Float[Array, "*batch_and_event"], inverse: bool = False
    ) -> Float[Array, "step *batch_and_event"]:
        """Computes x and the state after each step.

        Args:
          x: Array of shape ``[*batch, *event]``.
          inverse: Whether to apply the inverses of the steps, the last step first.

        Returns:
          K + 1 arrays along a new first axis, the last being ``forward(x)`` or ``inverse(x)``.
        """

        def body(x, variables):
            bijector = self.step(variables, self.context)
            y = bijector.inverse(x) if inverse else bijector.forward(x)
            return y, y

        x = self._widened(x)
        _, after = jax.lax.scan(body, x, self.variables, reverse=inverse, unroll=self.unroll)
        return jnp.concatenate([x[None], jnp.flip(after, axis=0) if inverse else after])

    def _widened(self, x):
        wide = [leaf.dtype for leaf in jax.tree.leaves((self.variables, self.context))]
        wide = [dtype for dtype in wide if jnp.issubdtype(dtype, jnp.floating)]
        return x.astype(jnp.result_type(x.dtype, jnp.float32, *wide))

    def _forward(self, x):
        return self._run(x, inverse=False)

    def _inverse(self, y):
        return self._run(y, inverse=True)


class _InverseStep:
    """A step with its directions swapped, compared by the step that it swaps."""

    def __init__(self, step: Callable):
        self.step = step

    def __call__(self, variables: PyTree, context: PyTree) -> Inverse:
        return Inverse(self.step(variables, context))

    def __hash__(self) -> int:
        return hash((_InverseStep, self.step))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _InverseStep) and self.step == other.step


def _check_stacked(variables: PyTree) -> None:
    """Checks that all leaves share their first axis, one slice a step."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(variables)]
    depths = {shape[:1] for shape in shapes}
    if len(depths) != 1 or depths == {()}:
        raise ValueError(
            "variables must hold at least one leaf, and all the same first axis (one slice a "
            f"step); got leaves of shapes {shapes}"
        )
