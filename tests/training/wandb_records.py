"""Reads the metrics in the files that wandb leaves offline."""

from __future__ import annotations

import json
import pathlib
import time

from vaeflow.training.wandb_files import records


def messages(path: pathlib.Path) -> list:
    """The records of a session, as messages of Protocol Buffers."""
    from wandb.proto import wandb_internal_pb2

    return [wandb_internal_pb2.Record.FromString(each) for each in records(path.read_bytes())]


def sessions(directory: pathlib.Path) -> list[tuple[str, list[dict[str, float]]]]:
    """For each session of a run, in order, the run's id and the metrics, with "_step"."""
    return [(path.stem.removeprefix("run-"), _metrics(path)) for path in files(directory)]


def files(directory: pathlib.Path) -> list[pathlib.Path]:
    """The files of the sessions of a run, in order."""
    paths = directory.glob("wandb/offline-run-*/*.wandb")
    return sorted(paths, key=lambda path: path.parent.stat().st_ctime_ns)


def wait(directory: pathlib.Path) -> None:
    """Waits for the last session's file, which wandb ends shortly after the session."""
    for _ in range(200):
        found = messages(files(directory)[-1])
        if found and found[-1].WhichOneof("record_type") == "exit":
            return
        time.sleep(0.1)
    raise AssertionError(f"the file of the last session in {directory} has no end")


def _metrics(path: pathlib.Path) -> list[dict[str, float]]:
    found = []
    for record in messages(path):
        if record.WhichOneof("record_type") == "history":
            items = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            own = {k: v for k, v in items.items() if k == "_step" or not k.startswith("_")}
            found.append(own)
    return found
