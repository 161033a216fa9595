"""The directory of a run and its lock."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from etils import epath

from vaeflow._util.files import is_local, write_whole
from vaeflow.sharing import save
from vaeflow.training.hosts import is_first

LOCK = "lock"
"""Name of the file in a run's directory that its process holds locked."""


@contextlib.contextmanager
def run_lock(path: str) -> Iterator[None]:
    """Holds a run's directory for this process; the system lets go of it when the process ends.

    There is no such lock in stores that aren't file systems, such as "gs://...", where two
    processes on one directory are the caller's to avoid.

    Args:
      path: The directory, made if there is none.

    Raises:
      ValueError: If another process holds it; the message names that process.
      OSError: If the directory can't be written.
    """
    if not is_local(path):
        yield
        return
    import fcntl  # which only file systems of Unix have

    root = epath.Path(path).expanduser().resolve()
    try:
        root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OSError(f"workdir {path} can't be used: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode().strip() or "of unknown number"
            raise ValueError(
                f"workdir {path} is in use by process {holder}; wait for it, or give another "
                "--workdir"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


_PACKAGES = ("vaeflow", "jax", "jaxlib", "flax", "optax", "distrax", "numpy")


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """A run's files.

    `config.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/`, `figures/`,
    `model.safetensors`, `report.json`. Made by `open_run_directory`.

    Attributes:
      path: The directory.
      experiment: Name of the experiment.
      preset: Name of the preset that the configuration started from.
      config: The configuration as JSON values.
      opened_at: When it was opened, on the clock of `time.monotonic`.
      earlier_seconds: What earlier sessions of the same run took.
    """

    path: epath.Path
    experiment: str
    preset: str
    config: dict[str, Any]
    opened_at: float
    earlier_seconds: float

    @property
    def checkpoints(self) -> epath.Path:
        """Where checkpoints are kept."""
        return self.path / "checkpoints"

    @property
    def figures(self) -> epath.Path:
        """Where figures are drawn; it exists."""
        return self.path / "figures"

    @property
    def tensorboard(self) -> epath.Path:
        """Where TensorBoard events are written."""
        return self.path / "tensorboard"

    @property
    def metrics_file(self) -> epath.Path:
        """One JSON object a line, with "step", "wall_seconds" and the metrics of that step."""
        return self.path / "metrics.jsonl"

    @property
    def model_file(self) -> epath.Path:
        """The model, as `vaeflow.load` reads it."""
        return self.path / "model.safetensors"

    @property
    def report_file(self) -> epath.Path:
        """The result of the run, written last: a run that has it is finished."""
        return self.path / "report.json"

    def wall_seconds(self) -> float:
        """Seconds that the run has taken, over all its sessions."""
        return self.earlier_seconds + time.monotonic() - self.opened_at

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`; what a kill left half-written is dropped."""
        return read_json_lines(self.metrics_file)

    def read_report(self) -> dict[str, Any] | None:
        """The report of a finished run, None where the run isn't finished.

        Raises:
          ValueError: If `report.json` isn't one.
        """
        return read_json(self.report_file)

    def write_model(
        self, variables: Mapping[str, Any], shape: tuple[int, ...] | Mapping[str, tuple[int, ...]]
    ) -> None:
        """Writes `model.safetensors`, for others to use and for `python -m experiments.export`.

        Of several hosts the first one does. The configuration in it is a dict of "experiment",
        "preset", "shape" and "config".

        Args:
          variables: The model's Flax variables.
          shape: Shape of one example of the data, or of each domain by name.
        """
        described = {
            "experiment": self.experiment,
            "preset": self.preset,
            "shape": shape,
            "config": self.config,
        }
        if is_first():
            save(self.model_file, described, variables)

    def write_report(
        self,
        *,
        step: int,
        metrics: Mapping[str, float],
        expected: Mapping[str, Mapping[str, Any]] | None = None,
        remark: str = "",
    ) -> dict[str, Any]:
        """Writes `report.json`, on the first host, which finishes the run.

        Args:
          step: Number of updates behind the reported parameters.
          metrics: The results by name; a value that isn't finite is written as null.
          expected: What was to be expected, by metric: `{"value": ..., "source": ...}`.
          remark: What a reader must not miss.

        Returns:
          The report.
        """
        devices = jax.devices()
        report = {
            "experiment": self.experiment,
            "preset": self.preset,
            "step": step,
            "seed": self.config.get("train", {}).get("seed"),
            "wall_seconds": round(self.wall_seconds(), 1),
            "device": f"{len(devices)} x {devices[0].device_kind}",
            "versions": versions(),
            "metrics": {name: plain(value) for name, value in metrics.items()},
            "expected": {name: dict(value) for name, value in (expected or {}).items()},
            "remark": remark,
        }
        if is_first():
            write_json(self.report_file, report)
        return report


def open_run_directory(
    path: str, config: Any, *, experiment: str = "", preset: str = ""
) -> RunDirectory:
    """Opens the directory of a run, new or not.

    A configuration under which no step was made yet, for instance because its data weren't found,
    may still be replaced by another. Of several hosts, which all see the directory, the first
    writes to it.

    Args:
      path: The directory, local or anything that `etils.epath` knows, such as "gs://...".
      config: The configuration, a dataclass, written to `config.json`.
      experiment: Name of the experiment.
      preset: Name of the preset.

    Returns:
      The directory, which now exists.

    Raises:
      OSError: If it can't be written.
      ValueError: If it holds a run of another configuration; the message shows the difference.
    """
    root = epath.Path(path)
    if is_local(path):
        root = root.expanduser().resolve()  # which would take a store's name for a folder's
    settings = json.loads(json.dumps(dataclasses.asdict(config)))
    now = {"experiment": experiment, "preset": preset, "config": settings}
    try:
        before = read_json(root / "config.json")
        lines = read_json_lines(root / "metrics.jsonl")
        # Parts, such as a prior, are in folders of their own; a folder with a configuration of its
        # own is another run.
        of_parts = [
            read_json_lines(path)
            for path in root.glob("*/metrics.jsonl")
            if not (path.parent / "config.json").exists()
        ]
        if before != now:
            made = bool(lines) or any(of_parts) or (root / "report.json").exists()
            if before is not None and made:
                raise ValueError(
                    f"workdir {path} holds a run of another configuration "
                    f"({difference(before, now)}); give the same options again or another --workdir"
                )
            if is_first():
                (root / "figures").mkdir(parents=True, exist_ok=True)
                write_json(root / "config.json", now)
    except OSError as error:
        raise OSError(f"workdir {path} can't be used: {error.strerror or error}") from error
    return RunDirectory(
        path=root,
        experiment=experiment,
        preset=preset,
        config=settings,
        opened_at=time.monotonic(),
        # Parts count the seconds of the whole run.
        earlier_seconds=max(
            (part[-1].get("wall_seconds", 0.0) for part in (lines, *of_parts) if part), default=0.0
        ),
    )


def difference(before: Any, now: Any) -> str:
    """What differs between two JSON values, such as "train.steps: 100 there, 200 here"."""
    old, new = flatten(before), flatten(now)
    return ", ".join(
        f"{name.removeprefix('config.')}: {shown(old, name)} there, {shown(new, name)} here"
        for name in dict.fromkeys([*old, *new])
        if shown(old, name) != shown(new, name)
    )


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict with dotted names."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    flat = {}
    for name, item in value.items():
        flat |= flatten(item, f"{prefix}.{name}" if prefix else name)
    return flat


def shown(flat: Mapping[str, Any], name: str) -> str:
    """A value as JSON, "nothing" where it is missing."""
    return json.dumps(flat[name]) if name in flat else "nothing"


def plain(value: Any) -> float | None:
    """A number as JSON has it: null for what isn't finite."""
    number = float(value)
    return number if math.isfinite(number) else None


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a run's result."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # run from a checkout that isn't installed
    return found


def write_json(path: epath.Path, value: Any) -> None:
    """Writes a file whole or not at all."""
    write_whole(path, (json.dumps(value, indent=2) + "\n").encode())


def read_json(path: epath.Path) -> Any:
    """Reads a JSON file, None where there is none.

    Raises:
      ValueError: If it isn't JSON.
    """
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} isn't JSON: {error}") from error


def read_json_lines(path: epath.Path) -> list[dict[str, Any]]:
    """Reads one JSON object a line, none where there is no file; a line cut short is dropped."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines
