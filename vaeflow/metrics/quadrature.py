"""Integrals and expectations over boxes of one or two dimensions, by the midpoint rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Array, Float


def log_integral(
    log_density: Callable[[Float[np.ndarray, "point dimension"]], Float[Array, "point"]],
    low: Sequence[float],
    high: Sequence[float],
    num_cells: int = 1000,
) -> float:
    """Computes log of the integral of exp(log_density) over a box, by the midpoint rule.

    For smooth densities that are negligible at the border it is as exact as rounding allows, once
    there are a few cells to each feature.

    Args:
      log_density: From points of shape ``[point, dimension]``, float32, to nats ``[point]``.
      low: Lower corner of the box.
      high: Upper corner.
      num_cells: Number of cells along each axis.

    Raises:
      ValueError: If the corners have different lengths, more than two dimensions or aren't in
        order, or there are no cells.
    """
    points, log_cell = _cells(low, high, num_cells)
    values = np.asarray(log_density(points), np.float64)
    largest = np.max(values)
    return float(largest + np.log(np.sum(np.exp(values - largest))) + log_cell)


def expectation(
    log_density: Callable[[Float[np.ndarray, "point dimension"]], Float[Array, "point"]],
    function: Callable[[Float[np.ndarray, "point dimension"]], Float[Array, "point"]],
    low: Sequence[float],
    high: Sequence[float],
    num_cells: int = 1000,
) -> float:
    """Computes the integral of exp(log_density) function over a box, by the midpoint rule.

    With log p for `log_density`, the function -log p gives the entropy of p, and log p - log q
    gives KL(p || q). Where the density is 0 the function doesn't count, whatever its value.

    Args:
      log_density: As for `log_integral`; not normalised here.
      function: From points, as `log_density`, to numbers ``[point]``.
      low: Lower corner of the box.
      high: Upper corner.
      num_cells: Number of cells along each axis.

    Raises:
      ValueError: As `log_integral`.
    """
    points, log_cell = _cells(low, high, num_cells)
    density = np.exp(np.asarray(log_density(points), np.float64) + log_cell)
    values = np.asarray(function(points), np.float64)
    return float(np.sum(density[density > 0] * values[density > 0]))


def _cells(
    low: Sequence[float], high: Sequence[float], num_cells: int
) -> tuple[Float[np.ndarray, "point dimension"], float]:
    """Centres of the cells of a box, float32, and the log of a cell's size."""
    if np.shape(low) != np.shape(high) or np.ndim(low) != 1 or not 1 <= len(low) <= 2:
        raise ValueError(f"low and high must hold 1 or 2 numbers each, got {low} and {high}")
    if num_cells < 1 or not np.all(np.less(low, high)):
        raise ValueError(
            f"low must be below high and num_cells at least 1, got {low}, {high} and {num_cells}"
        )
    widths = np.subtract(high, low, dtype=np.float64) / num_cells
    centers = (np.arange(num_cells) + 0.5)[:, None] * widths + low
    points = np.stack(np.meshgrid(*centers.T, indexing="ij"), axis=-1).reshape(-1, len(widths))
    return points.astype(np.float32), float(np.sum(np.log(widths)))
