"""Reductions over the examples of a batch, on one device or over a named axis."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Axis:
    """A batch axis that losses reduce over without knowing how it is divided.

    With ``name=None`` the full batch is local and each operation is the identity. With a name,
    the batch is divided over that mapped axis (`jax.pmap` or `jax.shard_map`), and the operations
    are the collectives that make a term coupled over the batch equal to the undivided one.

    Attributes:
      name: Name of the mapped axis, or None for an undivided batch.
    """

    name: str | None = None

    def sum(self, tree: PyTree) -> PyTree:
        """Sums each leaf over the axis."""
        return tree if self.name is None else jax.lax.psum(tree, self.name)

    def mean(self, tree: PyTree) -> PyTree:
        """Averages each leaf over the axis."""
        return tree if self.name is None else jax.lax.pmean(tree, self.name)

    def gather(self, tree: PyTree) -> PyTree:
        """Concatenates each leaf's rows, shape [rows, ...], from all members of the axis."""
        if self.name is None:
            return tree
        return jax.lax.all_gather(tree, self.name, axis=0, tiled=True)


LOCAL = Axis()
"""The axis of an undivided batch: every operation is the identity."""
