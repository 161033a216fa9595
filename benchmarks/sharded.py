"""vaeflow's side with its batch divided over several devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from benchmarks.ours import Ours
from benchmarks.size import Size
from vaeflow.training.parallel import make_strategy, replicate, replicated


def make(mode: str, plu: bool = True, **size: int) -> Sharded:
    """Makes the side on all devices that JAX finds."""
    return Sharded(Size(**size), mode, plu)


class Sharded(Ours):
    """A Glow whose state every device holds, and whose images are divided among them."""

    def __init__(self, size: Size, mode: str, plu: bool):
        super().__init__(size, mode, plu)
        self.strategy = make_strategy()
        count = self.strategy.mesh.size
        if size.batch_size % count:
            raise ValueError(f"batch_size must be divisible by {count}, got {size.batch_size}")

    def initialize(self) -> dict[str, Any]:
        """Initialises as one device does, and hands out state and images."""
        results = super().initialize()
        self.state = replicate(self.state, self.strategy.mesh)
        self.images = self.strategy.place(self.images, 0)
        return {**results, "devices": len(self.images.sharding.device_set)}

    def _function(self, work: str) -> Callable:
        function = super()._function(work)
        if work != "step":
            return function

        def step(state: Any, images: jax.Array) -> Any:
            # Without this the compiler might leave parts of the new state divided.
            whole = replicated(self.strategy.mesh)
            return jax.lax.with_sharding_constraint(function(state, images), whole)

        return step
