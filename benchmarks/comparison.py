"""Fair figures on a noisy machine: calls that alternate, medians, and how figures grow."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

TIMING_COLUMNS = ("median, ms", "least, ms", "times ours")
"""Head of the cells of a time."""


def alternate(sides: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Calls each side in turn; the first call of each isn't counted.

    Args:
      sides: Functions by name that measure one repetition.
      repeats: Number of repetitions that count.

    Returns:
      What each side measured, in order, so that entries of equal place are neighbours in time.
    """
    measured: dict[str, list[float]] = {name: [] for name in sides}
    for count in range(repeats + 1):
        for name, measure in sides.items():
            value = measure()
            if count:
                measured[name].append(value)
    return measured


def paired_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """Median of the ratios of neighbouring calls."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def timing_cells(values: Sequence[float], ours: Sequence[float], digits: int) -> tuple[str, ...]:
    """Median and least in milliseconds, and how often ours fits in; see `TIMING_COLUMNS`."""
    milliseconds = (1e3 * statistics.median(values), 1e3 * min(values))
    return *(f"{value:.{digits}f}" for value in milliseconds), f"{paired_ratio(values, ours):.2f}"


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Exponent p of the power law y = c x^p that fits best, by least squares of the logarithms."""
    return statistics.linear_regression([math.log(v) for v in x], [math.log(v) for v in y]).slope
