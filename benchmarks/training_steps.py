"""Times of training steps on several sides."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.comparison import TIMING_COLUMNS, alternate, timing_cells
from benchmarks.sides import Side

STEP_COLUMNS = (
    "side",
    "parameters",
    "of type",
    "first call, s",
    *TIMING_COLUMNS,
    "last loss, nats",
)


def training_steps(sides: Mapping[str, Side], calls: int, repeats: int) -> list[tuple[object, ...]]:
    """Measures steps; all sides make equally many, on one batch.

    Args:
      sides: Sides by name, ours first; each answers "initialize", "run" and "loss".
      calls: Steps of a side in one turn.
      repeats: Turns of each side.

    Returns:
      Rows below `STEP_COLUMNS`.
    """
    results = {name: side("initialize") for name, side in sides.items()}
    first = {name: side("run") for name, side in sides.items()}
    measures = {name: lambda side=side: side("run", calls) for name, side in sides.items()}
    times = alternate(measures, repeats)
    ours = next(iter(times.values()))
    return [
        (
            name,
            results[name]["parameters"],
            " ".join(results[name]["dtypes"]),
            f"{first[name]:.2f}",
            *timing_cells(values, ours, 2),
            f"{sides[name]('loss'):.1f}",
        )
        for name, values in times.items()
    ]
