"""Loggers of experiment trackers, Weights & Biases and MLflow, and the option that names loggers.

Each keeps the identity of its record in the run's directory, so that a session that goes on adds to
that record. It asks the record for its last step: steps that `metrics.jsonl` has up to the
checkpoint, and the record hasn't, are added first; steps that the record has, and a session repeats
with the same values, aren't written again.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
import uuid
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Literal, get_args

from vaeflow._util.files import is_local, optional_import, write_json
from vaeflow._util.reading import read_json
from vaeflow.training.fingerprint import flatten
from vaeflow.training.logging import OpenLogger, TensorBoardLogger
from vaeflow.training.run_directory import RunDirectory
from vaeflow.training.wandb_files import last_step
from vaeflow.typing import Logger

LoggerName = Literal["tensorboard", "wandb", "mlflow"]


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """Where the metrics of a run go."""

    to: tuple[LoggerName, ...] = ("tensorboard",)
    """Any of tensorboard, wandb and mlflow, or none; metrics.jsonl is always written.
    Weights & Biases and MLflow are set up as usual: by their logins, and by WANDB_MODE,
    WANDB_PROJECT or MLFLOW_TRACKING_URI."""

    def __post_init__(self) -> None:
        """Validates the names.

        Raises:
          ValueError: If one is unknown or named twice.
        """
        allowed = get_args(LoggerName)
        if len(set(self.to)) < len(self.to) or not set(self.to) <= set(allowed):
            raise ValueError(f"log.to must be some of {', '.join(allowed)}, got {self.to}")

    @property
    def loggers(self) -> tuple[OpenLogger, ...]:
        """The loggers, as `train` takes them."""
        known = {"tensorboard": TensorBoardLogger, "wandb": WandbLogger, "mlflow": MLflowLogger}
        return tuple(known[name] for name in self.to)


class WandbLogger:
    """Writes metrics to Weights & Biases, as one run, which later sessions go on with.

    The run is named as the directory and has the configuration of `config.json`; its id is kept in
    `wandb.json`. Values that aren't finite are sent as they are. Offline, each session leaves a
    folder in `wandb/`, which `wandb sync` uploads.

    Args:
      directory: The run's directory. Where it isn't local, wandb's files are in the current one.
      start_step: The step that this session goes on from.
      project: The project; None for that of wandb's settings.
      mode: Such as "offline"; None for that of wandb's settings.

    Raises:
      ValueError: If wandb isn't installed.
    """

    def __init__(
        self,
        directory: RunDirectory,
        start_step: int,
        *,
        project: str | None = None,
        mode: str | None = None,
    ) -> None:
        wandb = _package("wandb", "wandb")
        folder = pathlib.Path(directory.path if is_local(directory.path) else "").absolute()
        identity = (read_json(directory.path / "wandb.json") or {}).get("id", uuid.uuid4().hex)
        self._last = last_step(folder, identity)
        write_json(directory.path / "wandb.json", {"id": identity})
        self._run = wandb.init(
            project=project,
            mode=mode,
            dir=str(folder),
            id=identity,
            resume="allow",
            reinit="create_new",
            name=_name(directory),
            settings=wandb.Settings(console="off", silent=True, save_code=False),
        )
        self._run.config.update(directory.config, allow_val_change=True)
        _complete(self, directory, start_step)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Sends the metrics of a step, unless an earlier session did."""
        if step > self._last:
            self._run.log(dict(metrics), step=step)

    def flush(self) -> None:
        """Does nothing: wandb sends what it has in its own time."""

    def close(self) -> None:
        """Waits until all is sent, or offline written."""
        self._run.finish()


_LONGEST_PARAMETER = 6000


class MLflowLogger:
    """Writes metrics to MLflow, as one run, which later sessions go on with.

    The run is in the MLflow experiment that has the name of ours, is named as the directory, and
    has the configuration of `config.json` as parameters. Its id is kept in `mlflow.json`. Metrics
    are held back until `flush`. Those that aren't finite are left out, as databases have no
    infinities.

    Args:
      directory: The run's directory.
      start_step: The step that this session goes on from.
      tracking_uri: Place of the runs, such as "sqlite:///mlflow.db" or that of a server; None for
        that of MLflow's settings.

    Raises:
      ValueError: If MLflow isn't installed.
    """

    def __init__(
        self, directory: RunDirectory, start_step: int, *, tracking_uri: str | None = None
    ) -> None:
        self._mlflow = _package("mlflow", "mlflow-skinny")
        self._client = self._mlflow.MlflowClient(tracking_uri=tracking_uri)
        self._held: list[Any] = []
        known = read_json(directory.path / "mlflow.json") or {}
        found = self._find(known.get("run_id"))
        if found is None:
            self._run = self._create(directory)
            self._last: dict[str, int] = {}
            write_json(directory.path / "mlflow.json", {"run_id": self._run})
        else:
            self._run = found.info.run_id
            self._last = {
                name: max(each.step for each in self._client.get_metric_history(self._run, name))
                for name in found.data.metrics
            }
            self._client.update_run(self._run, status="RUNNING")
        _complete(self, directory, start_step)

    def _find(self, run_id: str | None) -> Any:
        """The run of earlier sessions, None if there is none or it was deleted."""
        if run_id is None:
            return None
        try:
            run = self._client.get_run(run_id)
        except self._mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run if run.info.lifecycle_stage == "active" else None

    def _create(self, directory: RunDirectory) -> str:
        name = directory.experiment or "vaeflow"
        experiment = self._client.get_experiment_by_name(name)
        identity = experiment.experiment_id if experiment else self._client.create_experiment(name)
        run = self._client.create_run(identity, run_name=_name(directory)).info.run_id
        parameters = [
            self._mlflow.entities.Param(key, str(value)[:_LONGEST_PARAMETER])
            for key, value in flatten(directory.config).items()
            if key
        ]
        self._client.log_batch(run, params=parameters)
        return run

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds the metrics of a step, but for those that an earlier session wrote."""
        now = time.time_ns() // 1_000_000
        self._held += [
            self._mlflow.entities.Metric(name, value, now, step)
            for name, value in metrics.items()
            if math.isfinite(value) and step > self._last.get(name, 0)
        ]

    def flush(self) -> None:
        """Writes what is held back."""
        held, self._held = self._held, []
        self._client.log_batch(self._run, metrics=held)

    def close(self) -> None:
        """Writes what is held back and marks the run as finished."""
        try:
            self.flush()
        finally:
            self._client.set_terminated(self._run)


def _complete(logger: Logger, directory: RunDirectory, start_step: int) -> None:
    """Writes the steps of earlier sessions, of which a logger takes those that it hasn't."""
    for line in directory.read_metrics():
        step = line.pop("step")
        line.pop("wall_seconds")
        if step <= start_step:
            logger.write(step, {k: math.nan if v is None else v for k, v in line.items()})


def _name(directory: RunDirectory) -> str:
    """The name of a run: that of its directory, for a part of a run after that of the run."""
    path = directory.path
    part = (path.parent / "config.json").exists()
    return f"{path.parent.name}/{path.name}" if part else path.name


def _package(module: str, package: str) -> ModuleType:
    return optional_import(module, f"logger {module}", package, "loggers")
