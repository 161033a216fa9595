"""What becomes of points after each step of a bijector."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import distrax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors.compose import Chain, Inverse


@runtime_checkable
class Stepwise(Protocol):
    """A bijector made of steps, such as `Scan`, that tells what it computes between them."""

    def states(self, x: Array, inverse: bool = False) -> Float[Array, "step *batch_and_event"]:
        """Lists x and what it has become after each step of one of the two directions."""


def trajectory(
    bijector: distrax.Bijector, x: Float[Array, "*batch_and_event"], inverse: bool = False
) -> Float[Array, "step *batch_and_event"]:
    """Lists x and what it has become after each step, from noise to data or back.

    The steps are those of a `Stepwise` bijector; a `Chain` has those of its parts, an `Inverse`
    those of what it swaps; any other bijector is one step.

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
