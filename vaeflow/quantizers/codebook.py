"""Codebooks as variables of a module: learned by gradients, or as moving averages."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from vaeflow.quantizers.moving_average import CodeSums, MovingAverage

COLLECTION = "codebook"
"""Name of the Flax collection of moving averages."""


def codes_of(
    module: nn.Module, average: MovingAverage | None, initial: Callable[[], Array] | None = None
) -> Float[Array, "*stages code channel"]:
    """Reads the codes of a module: its parameter "codebook", or the quotient of its averages.

    Args:
      module: Module that owns the codes.
      average: How they are averaged, or None if they are a parameter.
      initial: Computes the first codes; called in `init` alone, so given in a compact method.
    """
    fresh = initial is not None and module.is_initializing()
    if average is None:
        if fresh and not module.has_variable("params", "codebook"):
            return module.param("codebook", lambda _: initial())
        return module.get_variable("params", "codebook")
    if fresh and not module.has_variable(COLLECTION, "counts"):
        _write(module, average.initial(initial()))
    return jax.lax.stop_gradient(average.codes(_read(module)))


def learn(
    module: nn.Module, average: MovingAverage, assigned: CodeSums, candidates: CodeSums | None
) -> None:
    """Takes the sums of a whole batch into the averages of a module, see `MovingAverage.updated`.

    Args:
      module: Module that owns the codes, its collection being mutable.
      average: How they are averaged.
      assigned: Counts and sums by code, ``[*stages, code]``.
      candidates: The same by turn, or None.
    """
    update = average.updated
    if assigned.counts.ndim > 1:
        update = jax.vmap(update, (0, 0, None if candidates is None else 0))
    _write(module, update(_read(module), assigned, candidates))


def _read(module: nn.Module) -> CodeSums:
    return CodeSums(*(module.get_variable(COLLECTION, name) for name in CodeSums._fields))


def _write(module: nn.Module, sums: CodeSums) -> None:
    for name, value in sums._asdict().items():
        module.put_variable(COLLECTION, name, value)
