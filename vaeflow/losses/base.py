"""What every loss returns beside its value."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax


class Aux(NamedTuple):
    """The second result of a loss.

    Attributes:
      metrics: Scalars by name, each a mean over the rows that the loss was given.
      state: Updated mutable Flax collections by name; empty where there are none.
    """

    metrics: dict[str, jax.Array]
    state: dict[str, Any]


def context_of(batch: dict[str, jax.Array], condition: str | None) -> jax.Array | None:
    """The model's context in a batch: the entry that `condition` names, or None."""
    return None if condition is None else batch[condition]
