"""Compositions of bijectors: chains, inverses, factoring out, trajectories, and scans over steps.

log|det| of a composition is the sum over its parts, each at its own input. A `Scan` holds equal
steps as one `jax.lax.scan` over stacked parameters: programs don't grow with the number of steps,
and `backward` trades memory against recomputation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.arrays import check_event_shape
from vaeflow.bijectors.base import CONDITIONED, Bijector
from vaeflow.bijectors.reversible import reversible_scan


class Chain(Bijector):
    """Composes bijectors: ``Chain([f, g])`` computes y = f(g(x)); the last is applied first.

    log|det dy/dx| is the sum of the parts' log-determinants, each at its own input.
    """

    composition = "chain"

    def __init__(self, bijectors: Sequence[distrax.Bijector]):
        """Builds the chain.

        Args:
          bijectors: At least one; each one's events must fit those of its right neighbour.

        Raises:
          ValueError: If there is none, or two neighbours differ in the rank of their events.
        """
        bijectors = list(bijectors)
        if not bijectors:
            raise ValueError("bijectors must hold at least one bijector, got none")
        for after, before in itertools.pairwise(bijectors):
            if after.event_ndims_in != before.event_ndims_out:
                raise ValueError(
                    f"Chain: {before.name} gives events of rank {before.event_ndims_out}, "
                    f"but {after.name} takes events of rank {after.event_ndims_in}"
                )
        super().__init__(
            bijectors[-1].event_ndims_in,
            bijectors[0].event_ndims_out,
            is_constant_jacobian=all(b.is_constant_jacobian for b in bijectors),
            is_constant_log_det=all(b.is_constant_log_det for b in bijectors),
        )
        self.bijectors = bijectors

    def forward(self, x: Float[Array, "*batch_and_event"]) -> Float[Array, "*batch_and_event"]:
        """Computes y = f(x) without log-determinants, which is cheaper for some parts."""
        for bijector in reversed(self.bijectors):
            x = bijector.forward(x)
        return x

    def inverse(self, y: Float[Array, "*batch_and_event"]) -> Float[Array, "*batch_and_event"]:
        """Computes x = f^-1(y) without log-determinants, which is cheaper for some parts."""
        for bijector in self.bijectors:
            y = bijector.inverse(y)
        return y

    def _forward(self, x):
        log_dets = []
        for bijector in reversed(self.bijectors):
            x, log_det = bijector.forward_and_log_det(x)
            log_dets.append(log_det)
        return x, sum(log_dets[1:], start=log_dets[0])

    def _inverse(self, y):
        log_dets = []
        for bijector in self.bijectors:
            y, log_det = bijector.inverse_and_log_det(y)
            log_dets.append(log_det)
        return y, sum(log_dets[1:], start=log_dets[0])


class Inverse(Bijector):
    """The inverse of a bijector: its two directions swapped."""

    composition = "inverse"

    def __init__(self, bijector: distrax.Bijector):
        """Builds the swapped bijector.

        Args:
          bijector: Any bijector that implements both directions.
        """
        super().__init__(
            bijector.event_ndims_out,
            bijector.event_ndims_in,
            is_constant_jacobian=bijector.is_constant_jacobian,
            is_constant_log_det=bijector.is_constant_log_det,
        )
        self.bijector = bijector

    def forward(self, x: Float[Array, "*batch_and_event"]) -> Float[Array, "*batch_and_event"]:
        """Computes the preimage without its log-determinant."""
        return self.bijector.inverse(x)

    def inverse(self, y: Float[Array, "*batch_and_event"]) -> Float[Array, "*batch_and_event"]:
        """Computes the image without its log-determinant."""
        return self.bijector.forward(y)

    def _forward(self, x):
        return self.bijector.inverse_and_log_det(x)

    def _inverse(self, y):
        return self.bijector.forward_and_log_det(y)


class FactorOut(Bijector):
    """Factoring out: part of the channels goes on to further levels, the rest becomes output.

    y = [g(x_1), flatten(x_2)] with x = [x_1, x_2] split along the last axis: one level of the
    multiscale architecture, where g is the levels above. The log-determinant is that of g.

    Shapes: ``[*batch, height, width, channel]`` to ``[*batch, height * width * channel]``; g takes
    ``[*batch, height, width, kept]`` to ``[*batch, height * width * kept]``.

    Source: Dinh, Sohl-Dickstein & Bengio 2017, "Density estimation using Real NVP", section 3.6.
    """

    static_fields = ("event_shape", "kept")

    def __init__(self, bijector: distrax.Bijector, event_shape: Sequence[int], kept: int):
        """Builds the split.

        Args:
          bijector: The map g of the first channels, to vectors.
          event_shape: Height, width and channels of an event.
          kept: Number of channels that go through g.

        Raises:
          ValueError: If `kept` isn't between 1 and the number of channels - 1.
        """
        if not 0 < kept < event_shape[-1]:
            raise ValueError(f"kept must be between 1 and {event_shape[-1] - 1}, got {kept}")
        super().__init__(
            len(event_shape),
            1,
            is_constant_jacobian=bijector.is_constant_jacobian,
            is_constant_log_det=bijector.is_constant_log_det,
        )
        self.bijector = bijector
        self.event_shape = tuple(event_shape)
        self.kept = kept

    def _forward(self, x: Array) -> tuple[Array, Array]:
        check_event_shape(self.name, x.shape, self.event_shape)
        batch = x.shape[: x.ndim - len(self.event_shape)]
        inner, log_det = self.bijector.forward_and_log_det(x[..., : self.kept])
        factored_out = x[..., self.kept :]
        # Not -1, which can't be resolved for an empty batch.
        factored_out = factored_out.reshape((*batch, math.prod(factored_out.shape[len(batch) :])))
        return jnp.concatenate([inner, factored_out], axis=-1), log_det

    def _inverse(self, y: Array) -> tuple[Array, Array]:
        check_event_shape(self.name, y.shape, (math.prod(self.event_shape),))
        batch = y.shape[:-1]
        *positions, channels = self.event_shape
        size = math.prod(positions) * self.kept
        inner, log_det = self.bijector.inverse_and_log_det(y[..., :size])
        factored_out = y[..., size:].reshape((*batch, *positions, channels - self.kept))
        return jnp.concatenate([inner, factored_out], axis=-1), log_det


@runtime_checkable
class Stepwise(Protocol):
    """A bijector of several steps, such as `Scan`, that returns the states between them."""

    def states(self, x: Array, inverse: bool = False) -> Float[Array, "step *batch_and_event"]:
        """Computes x and the state after each step of one direction."""


def trajectory(
    bijector: distrax.Bijector, x: Float[Array, "*batch_and_event"], inverse: bool = False
) -> Float[Array, "step *batch_and_event"]:
    """Computes x and the state after each step, from noise to data or back.

    The steps are those of a `Stepwise` bijector; a `Chain` has those of its parts, an `Inverse`
    those of the bijector inside it; any other bijector is one step.

    Args:
      bijector: A bijector whose steps keep the shape of events, such as a flow of vectors.
      x: Noise, or with `inverse` data, of shape ``[*batch, *event]``.
      inverse: Whether to go from data to noise.

    Returns:
      States along a new first axis: x first, ``bijector.forward(x)`` or ``bijector.inverse(x)``
      last.

    Raises:
      ValueError: If a step changes the shape of events.
    """
    if isinstance(bijector, Inverse):
        return trajectory(bijector.bijector, x, not inverse)
    if isinstance(bijector, Stepwise):
        return bijector.states(x, inverse)
    if isinstance(bijector, Chain):
        parts = bijector.bijectors if inverse else bijector.bijectors[::-1]
        states = [x[None]]
        for part in parts:
            states.append(trajectory(part, states[-1][-1], inverse)[1:])
        return jnp.concatenate(states)
    y = bijector.inverse(x) if inverse else bijector.forward(x)
    if y.shape != x.shape:
        raise ValueError(
            f"{bijector.name}: a step must keep the shape of events, "
            f"but takes an array of shape {x.shape} to {y.shape}"
        )
    return jnp.stack([x, y])


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
    * "remat" stores the input of each step and the outputs of each `Conditioner`, and recomputes
      their hidden layers, which is faster on CPUs than writing and reading them.
    * "reversible" stores the input of every `segment` steps and recovers those between by inverting
      one step after another; a segment that isn't recovered to a relative error of 1e-5 is
      recomputed from its start. It has no forward-mode derivatives, but those of its gradient
      (`jax.hessian`).

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
