"""What every loss returns beside its value."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax

NEEDS = {
    "infer": "latents that are inferred",
    "posterior": "a single posterior",
    "log_prob": "a log-likelihood",
    "quantize": "codes",
}
"""What a model has that answers a method."""


class Aux(NamedTuple):
    """The second result of a loss.

    Attributes:
      metrics: Scalars by name, each a mean over the rows that the loss was given.
      state: Updated mutable Flax collections by name; empty where there are none.
    """

    metrics: dict[str, jax.Array]
    state: dict[str, Any]


def require(model: nn.Module, method: str) -> None:
    """Refuses a model that an objective isn't defined for.

    Raises:
      ValueError: If the model lacks a method that the objective asks.
    """
    if not hasattr(model, method):
        raise ValueError(
            f"this objective is defined for models with {NEEDS[method]} (`{method}`); "
            f"{type(model).__name__} has none"
        )


def context_of(
    batch: dict[str, jax.Array], condition: str | tuple[str, ...] | None
) -> jax.Array | tuple[jax.Array, ...] | None:
    """The model's context in a batch: the entry that `condition` names, all of several, or None."""
    if isinstance(condition, tuple):
        return tuple(batch[name] for name in condition)
    return None if condition is None else batch[condition]
