"""The log of metrics of a run: `metrics.jsonl` and TensorBoard events, both append-only files."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from vaeflow._util.files import is_local, optional_import, write_whole
from vaeflow.training.run_directory import RunDirectory, finite_or_none

if TYPE_CHECKING:
    from etils import epath


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
        try:
            self.flush()
        finally:
            if self._appended is not None:
                self._appended.close()

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


_SECONDS_BETWEEN_FLUSHES = 30.0


class MetricLog:
    """Appends to `metrics.jsonl` and to the TensorBoard events of a run. A context manager.

    Lines of steps after `start_step`, left by a session that was killed after its last checkpoint,
    are removed first: those steps are repeated.

    Args:
      directory: The run's directory.
      start_step: The step that this session goes on from.

    Raises:
      OSError: If the files can't be written; so do the methods.
      ValueError: If tensorboardX isn't installed.
    """

    def __init__(self, directory: RunDirectory, start_step: int) -> None:
        self._directory = directory
        lines = [line for line in directory.read_metrics() if line["step"] <= start_step]
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"
        with self._writing(), contextlib.ExitStack() as files:
            directory.tensorboard.mkdir(parents=True, exist_ok=True)
            self._lines = files.enter_context(
                AppendOnlyFile(directory.metrics_file, b"".join(map(_line, lines)))
            )
            self._events = files.enter_context(
                AppendOnlyFile(
                    directory.tensorboard / name,
                    _event(0, file_version="brain.Event:2") + _restart_event(start_step + 1),
                )
            )
            self._files = files.pop_all()
        self._flushed_at = time.monotonic()

    def __enter__(self) -> MetricLog:
        return self

    def __exit__(self, *exception: Any) -> None:
        with self._writing():
            self._files.close()

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Appends the metrics of a step.

        Args:
          step: The number of updates made.
          metrics: Scalars by name.
        """
        scalar = _tensorboard("summary").scalar
        values = {name: finite_or_none(value) for name, value in metrics.items()}
        seconds = round(self._directory.wall_seconds(), 3)
        with self._writing():
            self._lines.append(_line({"step": step, **values, "wall_seconds": seconds}))
            for name, value in values.items():
                if value is not None:
                    self._events.append(_event(step, summary=scalar(name, value)))
        if time.monotonic() - self._flushed_at > _SECONDS_BETWEEN_FLUSHES:
            self.flush()

    def flush(self) -> None:
        """Writes what is held back; called before each checkpoint, whose steps aren't repeated."""
        with self._writing():
            self._lines.flush()
            self._events.flush()
        self._flushed_at = time.monotonic()

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
    return optional_import(f"tensorboardX.{module}", "training.fit", "tensorboardX")
