"""What a variational auto-encoder minimises, by name."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal

import jax.numpy as jnp

from vaeflow import losses


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised."""

    bound: Literal["elbo", "importance-weighted", "sticking-the-landing", "doubly-reparameterized"]
    """The negative ELBO; the importance-weighted bound, with its plain gradient; or a bound with a
    gradient of less variance."""
    samples: int = 1
    """Samples k of each image; the ELBO takes one."""
    beta: float = 1.0
    """Weight of the KL, for the ELBO alone."""
    warmup: float = 0.0
    """Share of the training over which that weight rises from 0."""

    def __post_init__(self) -> None:
        """Refuses values out of range.

        Raises:
          ValueError: Naming the field, the value given and what is allowed.
        """
        if self.samples < 1 or (self.bound == "elbo" and self.samples != 1):
            raise ValueError(
                f"objective.samples must be at least 1, and 1 for the ELBO, got {self.samples}"
            )
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"objective.warmup must be in [0, 1], got {self.warmup}")
        if self.bound != "elbo" and (self.beta, self.warmup) != (1.0, 0.0):
            raise ValueError(
                "objective.beta and objective.warmup are for the ELBO, got "
                f"{self.beta} and {self.warmup} with {self.bound}"
            )
        if self.beta < 0:
            raise ValueError(f"objective.beta must be at least 0, got {self.beta}")


def make_loss(objective: ObjectiveConfig, steps: int) -> tuple[Any, dict[str, Any]]:
    """The loss of a run of so many steps, and the schedules of its weights."""
    if objective.bound == "elbo":
        rise = max(objective.warmup * steps, 1e-9)
        beta = objective.beta
        return losses.elbo, {"beta": lambda step: beta * jnp.minimum(1.0, step / rise)}
    bounds = {
        "importance-weighted": losses.importance_weighted,
        "sticking-the-landing": losses.sticking_the_landing,
        "doubly-reparameterized": losses.doubly_reparameterized,
    }
    return functools.partial(bounds[objective.bound], samples=objective.samples), {}
