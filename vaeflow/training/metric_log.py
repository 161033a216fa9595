"""The metrics of a run, as JSON lines and as TensorBoard events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vaeflow.training.run_directory import RunDirectory, plain


class MetricLog:
    """Appends to `metrics.jsonl` and to the TensorBoard events of a run. A context manager.

    Lines of steps after `start_step`, left by a session that was killed after its last checkpoint,
    are removed first: those steps are made again.

    Args:
      directory: The run's directory.
      start_step: The step that this session goes on from.
    """

    def __init__(self, directory: RunDirectory, start_step: int) -> None:
        import tensorboardX

        self._directory = directory
        kept = [line for line in directory.read_metrics() if line["step"] <= start_step]
        path = directory.metrics_file
        partial = path.with_name(path.name + ".partial")
        partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
        partial.replace(path)
        self._lines = path.open("a")
        self._events = tensorboardX.SummaryWriter(
            str(directory.tensorboard), purge_step=start_step + 1
        )

    def __enter__(self) -> MetricLog:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._lines.close()
        self._events.close()

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Appends the metrics of a step.

        Args:
          step: The number of updates made.
          metrics: Scalars by name.
        """
        values = {name: plain(value) for name, value in metrics.items()}
        seconds = round(self._directory.wall_seconds(), 3)
        line = json.dumps({"step": step, **values, "wall_seconds": seconds})
        self._lines.write(line + "\n")
        self._lines.flush()  # a killed run keeps its lines
        for name, value in values.items():
            if value is not None:
                self._events.add_scalar(name, value, step)
