"""Compositions of bijectors: chains, inverses, factoring out, and trajectories through steps.

log|det| of a composition is the sum over its parts, each at its own input.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import distrax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.shapes import check_event_shape
from vaeflow.bijectors.base import Bijector


class Chain(Bijector):
    """Composes bijectors: ``Chain([f, g])`` computes y = f(g(x)); the last is applied first.

    log|det dy/dx| is the sum of the parts' log-determinants, each at its own input.
    """

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
        factored_out = x[..., self.kept :].reshape((*batch, -1))
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
