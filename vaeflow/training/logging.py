"""The log of metrics of a run: `metrics.jsonl`, TensorBoard events and other loggers.

The first two are append-only files of the run's directory. `vaeflow.training.trackers` has loggers
of services.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from vaeflow._util.files import is_local, optional_import, write_whole
from vaeflow._util.messages import reason
from vaeflow.training.hosts import is_first
from vaeflow.training.run_directory import RunDirectory, finite_or_none
from vaeflow.typing import Logger

if TYPE_CHECKING:
    from etils import epath

OpenLogger = Callable[[RunDirectory, int], Logger]
"""Opens a logger for a session, from the run's directory and the step that it goes on from."""


class AppendOnlyFile:
    """An append-only file; on object stores it is rewritten whole on flush. A context manager.

    On a file system every piece is written at once, so that a killed process leaves all of them.
    Object stores such as "gs://..." only take whole files: there `flush` writes all pieces.

    Args:
      path: The file; its folder exists.
      content: Its initial content, which atomically replaces that of an earlier file.

    Raises:
      OSError: If it can't be written; so do the methods.
    """

    def __init__(self, path: epath.Path, content: bytes = b"") -> None:
        self._path = path
        self._content = bytearray(content)
        write_whole(path, content)
        self._appended = path.open("ab") if is_local(path) else None

    def __enter__(self) -> AppendOnlyFile:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def append(self, piece: bytes) -> None:
        """Adds a piece at the end."""
        if self._appended is None:
            self._content += piece
        else:
            self._appended.write(piece)
            self._appended.flush()

    def flush(self) -> None:
        """Writes the pieces that are held back."""
        if self._appended is None:
            write_whole(self._path, bytes(self._content))

    def close(self) -> None:
        """Flushes and closes the file."""
        try:
            self.flush()
        finally:
            if self._appended is not None:
                self._appended.close()


class JSONLinesLogger:
    """Appends to `metrics.jsonl`; a value that isn't finite is null.

    Lines of steps after `start_step`, left by a session that was killed after its last checkpoint,
    are removed first: those steps are repeated.

    Args:
      directory: The run's directory.
      start_step: The step that this session goes on from.

    Raises:
      OSError: If the file can't be written; so do the methods.
    """

    def __init__(self, directory: RunDirectory, start_step: int) -> None:
        self._directory = directory
        lines = [line for line in directory.read_metrics() if line["step"] <= start_step]
        self._file = AppendOnlyFile(directory.metrics_file, b"".join(map(_line, lines)))

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Appends a line, with the seconds that the run has taken."""
        values = {name: finite_or_none(value) for name, value in metrics.items()}
        seconds = round(self._directory.wall_seconds(), 3)
        self._file.append(_line({"step": step, **values, "wall_seconds": seconds}))

    def flush(self) -> None:
        """Writes what an object store holds back."""
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class TensorBoardLogger:
    """Writes TensorBoard events, without values that aren't finite, into `tensorboard/`.

    Each session has a file of its own. It begins with the event that makes TensorBoard drop what
    earlier sessions wrote about steps after `start_step`.

    Args:
      directory: The run's directory.
      start_step: The step that this session goes on from.

    Raises:
      OSError: If the files can't be written; so do the methods.
      ValueError: If tensorboardX isn't installed.
    """

    def __init__(self, directory: RunDirectory, start_step: int) -> None:
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"
        directory.tensorboard.mkdir(parents=True, exist_ok=True)
        self._file = AppendOnlyFile(
            directory.tensorboard / name,
            _event(0, file_version="brain.Event:2") + _restart_event(start_step + 1),
        )

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Appends an event for each metric."""
        scalar = _tensorboard("summary").scalar
        for name, value in metrics.items():
            value = finite_or_none(value)
            if value is not None:
                self._file.append(_event(step, summary=scalar(name, value)))

    def flush(self) -> None:
        """Writes what an object store holds back."""
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


_SECONDS_BETWEEN_FLUSHES = 30.0


class MetricLog:
    """The metrics of a session: `metrics.jsonl`, and other loggers. A context manager.

    The run itself reads `metrics.jsonl`, so an error of it, such as a full disk, ends the session.
    Another logger that fails is closed, with a warning, and the run goes on without it. If one
    can't be opened, this is said before any step is made.

    Args:
      directory: The run's directory; None for no `metrics.jsonl`, but `loggers` alone.
      start_step: The step that this session goes on from.
      loggers: The loggers besides `metrics.jsonl`; None for those of the directory.

    Raises:
      OSError: If the files of the run can't be written.
      ValueError: If another logger can't be opened.
    """

    def __init__(
        self,
        directory: RunDirectory | None,
        start_step: int,
        loggers: Sequence[OpenLogger] | None = None,
    ) -> None:
        if loggers is None and directory is not None:
            loggers = (TensorBoardLogger,) if directory.loggers is None else directory.loggers
        self._directory = directory
        self._step = start_step
        self._lines: JSONLinesLogger | None = None
        self._others: list[Logger] = []
        with contextlib.ExitStack() as opened:
            if directory is not None:
                with self._writing():
                    self._lines = JSONLinesLogger(directory, start_step)
                opened.callback(self._lines.close)
            for open_logger in loggers or ():
                self._others.append(self._open(open_logger))
                opened.callback(self._others[-1].close)
            opened.pop_all()
        self._flushed_at = time.monotonic()

    def _open(self, open_logger: OpenLogger) -> Logger:
        try:
            with self._writing():
                return open_logger(self._directory, self._step)
        except (OSError, ValueError):
            raise
        except Exception as error:  # of a service, or of a user's own code
            named = getattr(open_logger, "func", open_logger)  # of a partial
            name = getattr(named, "__name__", type(named).__name__)
            raise ValueError(f"logger {name} can't be opened: {reason(error)}") from error

    def __enter__(self) -> MetricLog:
        return self

    def __exit__(self, *exception: Any) -> None:
        try:
            self._call_others("close")
        finally:
            if self._lines is not None:
                with self._writing():
                    self._lines.close()

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Adds the metrics of a step.

        Args:
          step: The number of updates made.
          metrics: Scalars by name.

        Raises:
          OSError: If `metrics.jsonl` can't be written.
        """
        self._step = step
        if self._lines is not None:
            with self._writing():
                self._lines.write(step, metrics)
        values = {name: float(value) for name, value in metrics.items()}
        self._call_others("write", step, values)
        if time.monotonic() - self._flushed_at > _SECONDS_BETWEEN_FLUSHES:
            self.flush()

    def flush(self) -> None:
        """Writes what is held back; called before each checkpoint, whose steps aren't repeated.

        Raises:
          OSError: If `metrics.jsonl` can't be written.
        """
        if self._lines is not None:
            with self._writing():
                self._lines.flush()
        self._call_others("flush")
        self._flushed_at = time.monotonic()

    def _call_others(self, method: str, *arguments: Any) -> None:
        """Calls a method of each logger, of which those that fail are left out from then on."""
        for logger in list(self._others):
            try:
                getattr(logger, method)(*arguments)
            except Exception as error:  # of a service, or of a user's own code
                say(
                    f"warning: {type(logger).__name__} failed in {method}, after step "
                    f"{self._step} ({reason(error)}); the run goes on without it"
                )
                self._others.remove(logger)
                if method != "close":
                    with contextlib.suppress(Exception):
                        logger.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Says in errors of the disk how to go on."""
        try:
            yield
        except OSError as error:
            raise OSError(
                f"metrics can't be written to {self._directory.path} ({error.strerror or error}); "
                "the same command goes on from the last checkpoint"
            ) from error


def say(line: str) -> None:
    """Prints a line on the first host's stderr, above the progress bar."""
    if is_first():
        tqdm.write(line, file=sys.stderr)


def progress_bar(steps: int, start: int, shown: bool) -> tqdm:
    """Opens a bar on the first host's stderr, redrawn seldom in a file, or in a notebook."""
    # tqdm.auto looks for a notebook when it is imported, and warns in one that has no widgets.
    module = importlib.import_module(
        "tqdm.auto" if importlib.util.find_spec("ipywidgets") else "tqdm"
    )
    interval = 0.2 if sys.stderr.isatty() or "ipykernel" in sys.modules else 30.0
    return module.tqdm(
        total=steps,
        initial=start,
        desc="compiling",
        unit="step",
        mininterval=interval,
        maxinterval=2 * interval,
        dynamic_ncols=True,
        # Left out where it is shown: TQDM_DISABLE has its say then.
        **({} if shown and is_first() else {"disable": True}),
    )


def _line(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values) + "\n").encode()


def _event(step: int, **fields: Any) -> bytes:
    """A TensorBoard event as a TFRecord: its length and itself, each with a checksum."""
    masked_crc32c = _tensorboard("record_writer").masked_crc32c
    event_type = _tensorboard("proto.event_pb2").Event
    event = event_type(wall_time=time.time(), step=step, **fields).SerializeToString()
    length = struct.pack("<Q", len(event))
    checksums = [struct.pack("<I", masked_crc32c(part)) for part in (length, event)]
    return length + checksums[0] + event + checksums[1]


def _restart_event(step: int) -> bytes:
    """The event that makes TensorBoard drop the events of earlier sessions from a step on."""
    session_log = _tensorboard("proto.event_pb2").SessionLog
    return _event(step, session_log=session_log(status=session_log.START))


def _tensorboard(module: str) -> ModuleType:
    return optional_import(f"tensorboardX.{module}", "training.train", "tensorboardX")
