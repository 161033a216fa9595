"""The directory of a run: its files, their layout and formats, and the lock of its process.

`open_run_directory` creates it, or checks that it holds a run of the same configuration.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax

from vaeflow._util.files import is_local, optional_import, write_json
from vaeflow._util.messages import shown
from vaeflow._util.reading import read_json, read_json_lines
from vaeflow.sharing import save
from vaeflow.training.fingerprint import difference, different
from vaeflow.training.hosts import is_first

if TYPE_CHECKING:
    from etils import epath

    from vaeflow.typing import Logger

LOCK = "lock"
"""Name of the file in a run's directory that its process holds locked."""


@contextlib.contextmanager
def run_lock(path: str) -> Iterator[None]:
    """Locks a run's directory for this process; the system releases it when the process ends.

    Stores that aren't file systems, such as "gs://...", have no locks: there the caller must not
    start two processes on one directory.

    Args:
      path: The directory, created if there is none.

    Raises:
      ValueError: If another process holds it; the message names that process.
      OSError: If the directory can't be written.
    """
    if not is_local(path):
        yield
        return
    import fcntl  # Unix only

    root = _path(path)
    with _usable(path):
        root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode().strip() or "of unknown number"
            raise ValueError(
                f"workdir {shown(path)} is in use by process {holder}; wait for it, or give"
                " another --workdir"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


_PACKAGES = ("vaeflow", "jax", "jaxlib", "flax", "optax", "distrax", "numpy")


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """The files of a run.

    `config.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/`, `figures/`,
    `model.safetensors`, `report.json`. Returned by `open_run_directory`.

    Attributes:
      path: The directory.
      experiment: Name of the experiment.
      preset: Name of the preset that the configuration started from.
      config: The configuration as JSON values.
      opened_at: When it was opened, on the clock of `time.monotonic`.
      earlier_seconds: Duration of the earlier sessions of the same run.
      loggers: The loggers of `train` where it is given none; None for TensorBoard.
    """

    path: epath.Path
    experiment: str
    preset: str
    config: dict[str, Any]
    opened_at: float
    earlier_seconds: float
    loggers: tuple[Callable[[RunDirectory, int], Logger], ...] | None = None

    @property
    def checkpoints(self) -> epath.Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def figures(self) -> epath.Path:
        """The folder of figures; it exists."""
        return self.path / "figures"

    @property
    def tensorboard(self) -> epath.Path:
        """The folder of TensorBoard events."""
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
    def fingerprint_file(self) -> epath.Path:
        """The fingerprint of data, model and options; see `vaeflow.training.fingerprint`."""
        return self.path / "fingerprint.json"

    @property
    def report_file(self) -> epath.Path:
        """The result of the run, written last: its presence marks a finished run."""
        return self.path / "report.json"

    def wall_seconds(self) -> float:
        """Duration of the run, over all its sessions."""
        return self.earlier_seconds + time.monotonic() - self.opened_at

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`, without one that a kill left half-written.

        Raises:
          ValueError: If another line isn't one; the message names it.
        """
        return _read_metrics(self.metrics_file)

    def read_report(self) -> dict[str, Any] | None:
        """The report of a finished run, None if the run isn't finished.

        Raises:
          ValueError: If `report.json` isn't one.
        """
        report = read_json(self.report_file)
        if report is not None:
            _check_report(self.report_file, report)
        return report

    def check_fingerprint(self, fingerprint: Mapping[str, Any]) -> bool:
        """Checks that the run in this directory is of the same data, model and options.

        Args:
          fingerprint: All of the fingerprint, or some of its entries.

        Returns:
          Whether there is a fingerprint to compare with: runs of earlier versions have none.

        Raises:
          ValueError: With the differences.
        """
        before = read_json(self.fingerprint_file)
        if before is None:
            return False
        before = {name: before.get(name) for name in fingerprint}
        if before != fingerprint:
            raise ValueError(
                f"{shown(self.path)} holds a run of other data, another model or other options "
                f"({difference(before, fingerprint)}); go on with the same or give another "
                "directory"
            )
        return True

    def write_fingerprint(self, fingerprint: Mapping[str, Any]) -> None:
        """Writes `fingerprint.json`, on the first host, unless it is there already."""
        if is_first() and read_json(self.fingerprint_file) != fingerprint:
            write_json(self.fingerprint_file, fingerprint)

    def write_model(
        self, variables: Mapping[str, Any], shape: tuple[int, ...] | Mapping[str, tuple[int, ...]]
    ) -> None:
        """Writes `model.safetensors`, on the first host.

        Its configuration is a dict of "experiment", "preset", "shape" and "config", from which
        `python -m experiments.export` builds the model.

        Args:
          variables: The model's Flax variables.
          shape: Shape of one example of the data, or of each domain by name.
        """
        description = {
            "experiment": self.experiment,
            "preset": self.preset,
            "shape": shape,
            "config": self.config,
        }
        if is_first():
            save(self.model_file, description, variables)

    def write_report(
        self,
        *,
        step: int,
        metrics: Mapping[str, float],
        expected: Mapping[str, Mapping[str, Any]] | None = None,
        remark: str = "",
    ) -> dict[str, Any]:
        """Writes `report.json`, on the first host; the run is then finished.

        Args:
          step: Step of the reported parameters.
          metrics: The results by name; a value that isn't finite is written as null.
          expected: Reference values by metric: `{"value": ..., "source": ...}`.
          remark: A caveat for the reader.

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
            "versions": package_versions(),
            "metrics": {name: finite_or_none(value) for name, value in metrics.items()},
            "expected": {name: dict(value) for name, value in (expected or {}).items()},
            "remark": remark,
        }
        if is_first():
            write_json(self.report_file, report)
        return report


def open_run_directory(
    path: str,
    config: Any,
    *,
    experiment: str = "",
    preset: str = "",
    later: Mapping[str, str] | None = None,
) -> RunDirectory:
    """Opens the directory of a run, new or not.

    A configuration under which no step was made yet, for instance because its data weren't found,
    may still be replaced by another. All hosts need access to the directory; the first writes.

    Args:
      path: The directory, local or anything that `etils.epath` knows, such as "gs://...".
      config: The configuration, a dataclass, written to `config.json`.
      experiment: Name of the experiment.
      preset: Name of the preset.
      later: Fields of the configuration that only a later stage of the run uses, each with a
        pattern of files, relative to the directory: as long as none exists, that stage hasn't
        begun, and the field may be replaced.

    Returns:
      The directory, which now exists.

    Raises:
      OSError: If it can't be written.
      ValueError: If it holds a run of another configuration; the message shows the difference. If
        the path is of a kind that isn't known, or needs a package that isn't installed.
    """
    root = _path(path)
    settings = json.loads(json.dumps(dataclasses.asdict(config)))
    now = {"experiment": experiment, "preset": preset, "config": settings}
    with _usable(path):
        before = read_json(root / "config.json")
        records = _records(root)
        if before != now:
            finished = (root / "report.json").exists()
            if before is not None and (any(records) or finished):
                begun = [
                    name
                    for name in different(before, now)
                    if finished or not _is_to_come(root, name, later or {})
                ]
                if begun:
                    raise ValueError(
                        f"workdir {shown(path)} holds a run of another configuration "
                        f"({difference(before, now)}); give the same options again or another "
                        "--workdir"
                    )
            if is_first():
                (root / "figures").mkdir(parents=True, exist_ok=True)
                write_json(root / "config.json", now)
    return RunDirectory(
        path=root,
        experiment=experiment,
        preset=preset,
        config=settings,
        opened_at=time.monotonic(),
        # Parts count the seconds of the whole run.
        earlier_seconds=max((lines[-1]["wall_seconds"] for lines in records if lines), default=0.0),
    )


def _is_to_come(root: epath.Path, name: str, later: Mapping[str, str]) -> bool:
    """Whether a dotted name is that of a field of a stage that hasn't begun."""
    _, field, *_ = [*name.split("."), ""]
    return field in later and not any(root.glob(later[field]))


def _records(root: epath.Path) -> list[list[dict[str, Any]]]:
    """The metrics of a run and of its parts, such as a prior, which have folders of their own.

    A folder with a configuration is another run.
    """
    paths = [root / "metrics.jsonl"]
    for path in root.glob("*/metrics.jsonl"):
        if not (path.parent / "config.json").exists():
            paths.append(path)
    return [_read_metrics(path) for path in paths]


def _read_metrics(path: epath.Path) -> list[dict[str, Any]]:
    lines = read_json_lines(path)
    for place, line in enumerate(lines, 1):
        own = [line.get("step"), line.get("wall_seconds")]
        others = [value for value in line.values() if value is not None]  # null isn't finite
        if not all(map(_is_number, own + others)):
            raise ValueError(
                f"{shown(path)}, line {place} must have step, wall_seconds and other numbers, got "
                f"{json.dumps(line)[:80]}"
            )
    return lines


def _check_report(path: epath.Path, report: Mapping[str, Any]) -> None:
    """Checks that a report has the entries that are read, with their types."""
    metrics, expected = report.get("metrics"), report.get("expected")
    checks = {
        "metrics, numbers by name": isinstance(metrics, dict)
        and all(value is None or _is_number(value) for value in metrics.values()),
        "expected, each with value and source": isinstance(expected, dict)
        and all(
            isinstance(figure, dict) and _is_number(figure.get("value")) and "source" in figure
            for figure in expected.values()
        ),
        "wall_seconds, a number": _is_number(report.get("wall_seconds")),
    }
    for entry, holds in checks.items():
        if not holds:
            raise ValueError(
                f"{shown(path)} must have {entry}; without it the run is measured again"
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def finite_or_none(value: Any) -> float | None:
    """A number as JSON has it: None, for null, if it isn't finite."""
    number = float(value)
    return number if math.isfinite(number) else None


_PACKAGES_OF_STORES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs"}


def _path(path: str) -> epath.Path:
    """A path, absolute if it is local; the name of a store stays as it is.

    Raises:
      ValueError: If the kind of store isn't known, or its package isn't installed.
    """
    make = optional_import("etils.epath", "training.open_run_directory", "etils").Path
    if is_local(path):
        return make(path).expanduser().resolve()
    kind = path.partition("://")[0]
    try:
        root = make(path)
        root.exists()
    except KeyError:
        known = ", ".join(f"{name}://" for name in _PACKAGES_OF_STORES)
        raise ValueError(
            f"workdir {shown(path)} must be a local path or one of {known}, got {kind}://"
        ) from None
    except ImportError as error:
        package = _PACKAGES_OF_STORES.get(kind, str(error))
        raise ValueError(
            f"workdir {shown(path)} needs a package that isn't installed: pip install {package}"
        ) from None
    return root


@contextlib.contextmanager
def _usable(path: str) -> Iterator[None]:
    """Names the directory in errors of the disk."""
    try:
        yield
    except OSError as error:
        raise OSError(f"workdir {shown(path)} can't be used: {error.strerror or error}") from error


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that a run's result depends on."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        # A checkout needn't be installed.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions
