"""What a variational auto-encoder minimises, by name."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

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
    """Share of the training, or of each cycle of it, over which that weight rises from 0."""
    cycles: int = 1
    """How often it rises anew, in equal parts of the training; 1 is plain warm-up."""
    free_bits: float = 0.0
    """Nats of the KL of each latent that cost nothing, averaged over a batch, for the ELBO alone;
    of all latents at once where posterior or prior isn't normal."""

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
        if self.cycles < 1 or (self.cycles > 1 and not self.warmup):
            raise ValueError(
                "objective.cycles must be at least 1, and 1 without a warmup, got "
                f"{self.cycles} with warmup {self.warmup}"
            )
        if self.bound != "elbo" and (self.beta, self.warmup, self.free_bits) != (1.0, 0.0, 0.0):
            raise ValueError(
                "objective.beta, objective.warmup and objective.free_bits are for the ELBO, got "
                f"{self.beta}, {self.warmup} and {self.free_bits} with {self.bound}"
            )
        for name in ("beta", "free_bits"):
            if getattr(self, name) < 0:
                raise ValueError(f"objective.{name} must be at least 0, got {getattr(self, name)}")


def make_loss(
    objective: ObjectiveConfig, steps: int, condition: str | None = None
) -> tuple[Any, dict[str, Any]]:
    """The loss of a run of so many steps, and the schedules of its weights.

    Args:
      objective: What is minimised.
      steps: Number of steps of the run.
      condition: Name of the entry of a batch that is the model's context, or None.
    """
    if objective.bound == "elbo":
        free_bits = objective.free_bits or None
        loss = functools.partial(losses.elbo, free_bits=free_bits, context_key=condition)
        return loss, {"beta": _weight_of_the_kl(objective, steps)}
    bounds = {
        "importance-weighted": losses.importance_weighted,
        "sticking-the-landing": losses.sticking_the_landing,
        "doubly-reparameterized": losses.doubly_reparameterized,
    }
    loss = bounds[objective.bound]
    return functools.partial(loss, num_samples=objective.samples, context_key=condition), {}


def _weight_of_the_kl(objective: ObjectiveConfig, steps: int) -> Callable[[Any], Any]:
    if not objective.warmup:
        return losses.linear_schedule(0, end=objective.beta)
    return losses.cyclic_schedule(
        steps, cycles=objective.cycles, rising=objective.warmup, end=objective.beta
    )
