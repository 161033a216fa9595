"""Schedules of the weights of loss terms: linear warm-up and cyclical annealing."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Schedule = Callable[[Int[Array, ""] | int], Float[Array, ""]]


def linear_schedule(steps: float, *, start: float = 0.0, end: float = 1.0) -> Schedule:
    """Linear warm-up: a weight that goes from `start` to `end` linearly, then stays.

    (1 - s) start + s end at step t, with s = min(t / steps, 1). For a KL's weight it is linear
    warm-up, for the capacity of `elbo` the annealing of Burgess et al.; a schedule
    of no steps is `end` from the first.

    Source: Sonderby et al. 2016, "Ladder variational autoencoders", section 2.3 (warm-up); Burgess
    et al. 2018, "Understanding disentangling in beta-VAE", section 6 (capacity).

    Args:
      steps: Number of steps of the linear part.
      start: The weight at step 0.
      end: The weight at step `steps` and after it; for a capacity, in nats.

    Returns:
      A function of the number of updates made so far.

    Raises:
      ValueError: If `steps` is below 0.
    """
    if steps < 0:
        raise ValueError(f"steps must be at least 0, got {steps}")

    def schedule(step: Int[Array, ""] | int) -> Float[Array, ""]:
        share = jnp.minimum(jnp.asarray(step, jnp.float32) / steps, 1.0) if steps else 1.0
        return jnp.asarray((1 - share) * start + share * end, jnp.float32)

    return schedule


def cyclic_schedule(
    steps: int, *, cycles: int = 4, rising: float = 0.5, start: float = 0.0, end: float = 1.0
) -> Schedule:
    """Cyclical annealing: a weight that goes from `start` to `end` linearly in each cycle.

    With tau = (t mod T / M) / (T / M), the position in the cycle at step t, it is
    (1 - s) start + s end with s = min(tau / R, 1): each cycle restarts at `start` and ends at
    `end`, where the weight stays after the last one. M = 1 is linear warm-up.

    Source: Fu et al. 2019, "Cyclical annealing schedule: a simple approach to mitigating KL
    vanishing", equations 6 and 7.

    Args:
      steps: Number T of steps of all cycles.
      cycles: Number M of cycles.
      rising: Share R of a cycle in which the weight rises.
      start: The weight at the start of a cycle.
      end: The weight from the share `rising` of a cycle on.

    Returns:
      A function of the number of updates made so far.

    Raises:
      ValueError: If there are no cycles, more cycles than steps, or `rising` isn't in (0, 1]; or if
        cycles times steps is no int32.
    """
    if not 1 <= cycles <= steps:
        raise ValueError(f"cycles must be from 1 to the steps, {steps}, got {cycles}")
    if not 0 < rising <= 1:
        raise ValueError(f"rising must be in (0, 1], got {rising}")
    if steps * cycles > jnp.iinfo(jnp.int32).max:
        raise ValueError(f"steps times cycles must be below 2**31, got {steps} and {cycles}")
    within = linear_schedule(rising, start=start, end=end)

    def schedule(step: Int[Array, ""] | int) -> Float[Array, ""]:
        step = jnp.asarray(step)
        # t mod T / M in integers, without rounding.
        period, rest = jnp.divmod(step, steps)
        share = (rest * cycles % steps) / steps
        return within(jax.lax.select(period >= 1, jnp.ones_like(share), share))

    return schedule
