"""Evaluation of masked networks one entry after another, where each entry depends on the last."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of a network that `solve_sequentially` evaluates.

    Attributes:
      kernel: Weights, zero where a unit must not read.
      extra: What `combine` adds to the weighted sums: the same for all rows, or one for each.
      combine: Computes units from weighted sums and `extra`, entry by entry.
      starts: At each turn, the first unit to compute; earlier units are known by then.
      size: Number of units to compute at a turn.
    """

    kernel: Float[Array, "unit input"]
    extra: Float[Array, "unit row_or_one"]
    combine: Callable[[Array, Array], Array]
    starts: np.ndarray
    size: int


def solve_sequentially(
    layers: Sequence[Layer],
    entry: Callable[[Float[Array, "output row"], PyTree], tuple[Array, PyTree]],
    inputs: PyTree,
    places: np.ndarray,
    rows: int,
    dtype: Any,
) -> PyTree:
    """Computes the outputs for one entry after another, each fed back before the next.

    At each turn only those units are computed whose inputs have just become known, so that all
    turns together cost little more than one pass through the network. Units are rows of matrices
    here, and examples columns: what a turn reads and writes is then contiguous.

    Args:
      layers: The layers in order; the units of the last that a turn computes are its outputs. Units
        that follow them in a layer may be computed before their inputs are known; they are
        computed again before anything with a weight other than zero reads them.
      entry: Computes from the outputs of a turn, and from what `inputs` holds for it, the value
        ``[width, row]`` to feed back, and a result.
      inputs: Pytree of arrays with one entry a turn along the first axis.
      places: At each turn, where in the input of the first layer the value belongs.
      rows: Number of examples.
      dtype: Type in which units are kept and multiplied; sums are float32 or wider.

    Returns:
      The results, stacked along the first axis.
    """
    widths = [layer.kernel.shape[1] for layer in layers]
    known = tuple(jnp.zeros((width, rows), dtype) for width in widths)
    starts = [jnp.asarray(layer.starts) for layer in layers]

    def turn(known, at):
        starts, place, given = at
        units = list(known)
        for index, (layer, start) in enumerate(zip(layers, starts, strict=True)):
            kernel = jax.lax.dynamic_slice_in_dim(layer.kernel, start, layer.size)
            extra = jax.lax.dynamic_slice_in_dim(layer.extra, start, layer.size)
            outputs = layer.combine(product(kernel, units[index]), extra)
            if index + 1 < len(layers):
                units[index + 1] = _written(units[index + 1], outputs, start)
        value, result = entry(outputs, given)
        return (_written(units[0], value, place), *units[1:]), result

    return jax.lax.scan(turn, known, (starts, jnp.asarray(places), inputs))[1]


def blocks(degrees: np.ndarray, entries: int) -> tuple[np.ndarray, int]:
    """Finds the units of each degree, where degrees are in order.

    Returns:
      The first unit of each degree from 0 to `entries` - 1, and the largest number of units that
      have one degree. So many units starting there exist: at the end of the layer, blocks begin
      earlier.
    """
    size = int(np.bincount(degrees).max())
    return np.minimum(np.searchsorted(degrees, np.arange(entries)), len(degrees) - size), size


@jax.custom_vjp
def product(
    a: Float[Array, "row inner"], b: Float[Array, "inner column"]
) -> Float[Array, "row column"]:
    """Multiplies matrices of one dtype, with sums in float32 or wider.

    Gradients are multiplied in that dtype as well. Reverse-mode derivatives only.
    """
    return jnp.matmul(
        a,
        b,
        # Accelerators would otherwise multiply float32 in bfloat16, and one way and the other
        # round differently.
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.promote_types(a.dtype, jnp.float32),
    )


def _product_forward(a, b):
    return product(a, b), (a, b)


def _product_backward(factors, dproduct):
    a, b = factors
    dproduct = dproduct.astype(a.dtype)
    return product(dproduct, b.T).astype(a.dtype), product(a.T, dproduct).astype(b.dtype)


product.defvjp(_product_forward, _product_backward)


def _written(array: Array, block: Array, start: Array) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(array, block.astype(array.dtype), start, 0)
