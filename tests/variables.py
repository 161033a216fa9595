"""Variables of models under test, drawn by numpy: draws by JAX take long to compile.

In a function that is being compiled, the numbers drawn are constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def noisy(variables: Any, scale: float, seed: int = 0) -> Any:
    """Adds normal noise of this deviation to every leaf."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: leaf + scale * np.float32(generator.normal(size=leaf.shape)), variables
    )


def drawn_variables(
    init: Callable[..., Any], *arguments: Any, seed: int = 0, **keywords: Any
) -> dict[str, Any]:
    """Makes variables of the shapes that `init` returns, away from special values.

    Kernels have entries of variance 1 / (number of inputs), scales are near one and all else is
    near zero. Collections other than the parameters are those of `init`.
    """
    key = jax.random.key(seed)
    generator = np.random.default_rng(seed)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        normal = generator.normal(size=leaf.shape)
        if leaf.ndim > 1:
            return np.float32(normal / math.sqrt(math.prod(leaf.shape[:-1])))
        return np.float32(0.1 * normal + (path[-1].key == "scale"))

    parameters = jax.eval_shape(init, key, *arguments, **keywords)["params"]

    def others(*arguments: Any) -> dict[str, Any]:
        return {
            name: tree
            for name, tree in init(key, *arguments, **keywords).items()
            if name != "params"
        }

    rest = jax.jit(others)(*arguments)
    return {"params": jax.tree_util.tree_map_with_path(draw, parameters), **rest}
