"""Run directories: configuration, lock, metrics, report and model, on disks and object stores."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import vaeflow
from vaeflow.training import TrainConfig, open_run_directory
from vaeflow.training.logging import MetricLog
from vaeflow.training.run_directory import run_lock


@dataclasses.dataclass(frozen=True)
class Config:
    train: TrainConfig = dataclasses.field(default_factory=lambda: TrainConfig(seed=7))
    sizes: tuple[int, ...] = (1, 2)


def test_configuration_is_written_and_read(tmp_path):
    directory = open_run_directory(
        str(tmp_path / "a" / "run"), Config(), experiment="e", preset="p"
    )
    written = json.loads((tmp_path / "a" / "run" / "config.json").read_text())
    assert (written["experiment"], written["preset"]) == ("e", "p")
    assert written["config"]["train"]["seed"] == 7
    assert written["config"]["sizes"] == [1, 2]
    assert directory.figures.is_dir()
    again = open_run_directory(str(tmp_path / "a" / "run"), Config(), experiment="e", preset="p")
    assert again.config == directory.config


def test_other_configuration_raises_after_the_first_step(tmp_path):
    other = Config(TrainConfig(seed=8), (1,))
    directory = open_run_directory(str(tmp_path), Config())
    open_run_directory(str(tmp_path), other)  # no step was made yet
    directory = open_run_directory(str(tmp_path), Config())
    with MetricLog(directory, 0) as log:
        log.write(1, {"loss": 2.0})
    with pytest.raises(ValueError, match=r"train\.seed: 7 there, 8 here, sizes: ") as error:
        open_run_directory(str(tmp_path), other)
    assert "another --workdir" in str(error.value)
    assert json.loads((tmp_path / "config.json").read_text())["config"]["train"]["seed"] == 7


def test_unwritable_directory_raises(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"workdir .*file/run can't be used: Not a directory"):
        open_run_directory(str(tmp_path / "file" / "run"), Config())
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json isn't JSON"):
        open_run_directory(str(tmp_path), Config())


DAMAGED = {
    "report.json": [
        b"[]",
        b"null",
        b"{}",
        b'{"metrics": [], "expected": {}, "wall_seconds": 1}',
        b'{"metrics": {"a": "b"}, "expected": {}, "wall_seconds": 1}',
        b'{"metrics": {}, "expected": {"a": 1}, "wall_seconds": 1}',
        b'{"metrics": {}, "expected": {}, "wall_seconds": "long"}',
        b"[" * 100_000,
        b'{"metrics": ' + b"1" * 5000 + b"}",
        b"\xff\xfe\x00",
        b"",
    ],
    "config.json": [b"[]", b"1e999", b"{", b"\x80", b"[" * 100_000],
    "metrics.jsonl": [
        b"[]\n",
        b"{}\n",
        b'{"step": "a", "wall_seconds": 1}\n',
        b'{"step": 1, "wall_seconds": null}\n',
        b'{"step": 1, "wall_seconds": 1, "loss": []}\n',
        b"\x00\xff\n",
        b'{"a":' * 100_000 + b"\n",
        b"one\n" + b'{"step": 1, "wall_seconds": 1}\n',
    ],
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_raises_and_is_named(tmp_path, name):
    for content in DAMAGED[name]:
        open_run_directory(str(tmp_path), Config())
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(str(tmp_path / name))) as error:
            open_run_directory(str(tmp_path), Config()).read_report()
        assert len(str(error.value)) < 500
        (tmp_path / name).unlink()


def test_a_last_line_cut_short_is_dropped(tmp_path):
    directory = open_run_directory(str(tmp_path), Config())
    whole = b'{"step": 1, "wall_seconds": 1.5}'
    for rest, count in ((b"", 1), (b"\n", 1), (b'\n{"step": 2, "wa', 1), (b"\n" + whole, 2)):
        directory.metrics_file.write_bytes(whole + rest)
        assert [line["step"] for line in directory.read_metrics()] == [1] * count


def test_parts_of_a_run_count_its_total_seconds(tmp_path):
    directory = open_run_directory(str(tmp_path), Config())
    for name, seconds in (("prior", 12.5), ("classifier", 7.0)):
        (tmp_path / name).mkdir()
        line = json.dumps({"step": 1, "wall_seconds": seconds})
        (tmp_path / name / "metrics.jsonl").write_text(line + "\n")
    assert directory.earlier_seconds == 0
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "metrics.jsonl").write_text('{"step": 1, "wall_seconds": 99.0}\n')
    (tmp_path / "other" / "config.json").write_text("{}")  # another run
    assert open_run_directory(str(tmp_path), Config()).earlier_seconds == 12.5
    with pytest.raises(ValueError, match="holds a run of another configuration"):
        open_run_directory(str(tmp_path), Config(sizes=(3,)))


def test_lines_after_the_checkpoint_are_dropped(tmp_path):
    directory = open_run_directory(str(tmp_path), Config())
    with MetricLog(directory, 0) as log:
        for step in (1, 2, 3):
            log.write(step, {"loss": step, "other": float("nan")})
    with directory.metrics_file.open("a") as file:
        file.write('{"step": 4, "lo')
    seconds = directory.read_metrics()[-1]["wall_seconds"]
    again = open_run_directory(str(tmp_path), Config())
    assert again.earlier_seconds == seconds
    assert again.wall_seconds() > seconds
    with MetricLog(again, 2) as log:
        log.write(3, {"loss": 30.0})
    lines = [json.loads(line) for line in directory.metrics_file.read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 2.0), (3, 30.0)]
    assert lines[0]["other"] is None
    assert events(directory) == [(1, 1.0), (2, 2.0), (3, 3.0), (3, 30.0)]


def events(directory):
    """The losses among the events that TensorBoard would read, in order."""
    from tensorboardX.proto.event_pb2 import Event

    losses = []
    for file in directory.tensorboard.iterdir():
        content, position = file.read_bytes(), 0
        while position < len(content):
            size = int.from_bytes(content[position : position + 8], "little")
            event = Event.FromString(content[position + 12 : position + 12 + size])
            position += size + 16  # a length, its checksum, the event and its checksum
            scalars = {value.tag: value.simple_value for value in event.summary.value}
            if "loss" in scalars:
                losses.append((event.wall_time, event.step, scalars["loss"]))
    return [(step, loss) for _, step, loss in sorted(losses)]


class Store(MemoryFileSystem):
    """An object store: files are only written as a whole."""

    protocol = "az"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("az://").strip("/")

    def _open(self, path, mode="rb", **options):
        assert "a" not in mode
        return super()._open(path, mode, **options)


def test_object_store_has_the_metrics_after_each_flush():
    fsspec.register_implementation("az", Store, clobber=True)
    path = "az://bucket/run"
    directory = open_run_directory(path, Config(), experiment="e", preset="p")
    with MetricLog(directory, 0) as log:
        log.write(1, {"loss": 1.0})
        assert directory.read_metrics() == []
        log.flush()
        log.write(2, {"loss": 2.0})
        assert [line["loss"] for line in directory.read_metrics()] == [1.0]
    assert [line["loss"] for line in directory.read_metrics()] == [1.0, 2.0]
    with MetricLog(open_run_directory(path, Config(), experiment="e", preset="p"), 1) as log:
        log.write(2, {"loss": 3.0})
    assert [line["loss"] for line in directory.read_metrics()] == [1.0, 3.0]
    assert sorted(events(directory)) == [(1, 1.0), (2, 2.0), (2, 3.0)]
    with pytest.raises(ValueError, match="holds a run of another configuration"):
        open_run_directory(path, Config(sizes=(3,)), experiment="e", preset="p")
    directory.write_report(step=2, metrics={"loss": 3.0})
    assert directory.read_report()["metrics"] == {"loss": 3.0}


def test_unwritable_metrics_raise(tmp_path):
    directory = open_run_directory(str(tmp_path), Config())
    directory.tensorboard.write_text("in the way")
    with pytest.raises(OSError, match=r"metrics can't be written to .* \(File exists\); the same"):
        MetricLog(directory, 0)


HOLD = """
import sys
from vaeflow.training.run_directory import run_lock
with run_lock(sys.argv[1]): input()
"""


def test_lock_excludes_a_second_process(tmp_path):
    path = str(tmp_path / "run")
    with run_lock(path), run_lock(str(tmp_path / "other")):
        pass
    with run_lock("az://bucket/other"), run_lock("az://bucket/other"):
        pass  # no locks there
    command = [sys.executable, "-c", HOLD, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=os.getcwd()) as first:
        while (tmp_path / "run" / "lock").read_text() != f"{first.pid}\n":
            assert first.poll() is None
            time.sleep(0.01)
        for _ in range(2):
            raises = pytest.raises(ValueError, match=f"run is in use by process {first.pid}; wait")
            with raises, run_lock(path):
                pass
        first.send_signal(signal.SIGKILL)
    with run_lock(path):
        assert (tmp_path / "run" / "lock").read_text() == f"{os.getpid()}\n"
    (tmp_path / "file").touch()
    raises = pytest.raises(OSError, match=r"workdir .* can't be used: Not a directory")
    with raises, run_lock(str(tmp_path / "file" / "run")):
        pass


def test_report_has_metrics_and_versions(tmp_path):
    directory = open_run_directory(str(tmp_path), Config(), experiment="e", preset="p")
    assert directory.read_report() is None
    expected = {"bits_per_dim": {"value": 1.5, "source": "table 2"}}
    directory.write_report(
        step=9, metrics={"bits_per_dim": 1.25, "broken": float("inf")}, expected=expected
    )
    report = directory.read_report()
    assert report["metrics"] == {"bits_per_dim": 1.25, "broken": None}
    assert report["expected"] == expected
    assert [report[k] for k in ("experiment", "preset", "step", "seed")] == ["e", "p", 9, 7]
    assert report["wall_seconds"] >= 0
    assert report["device"] == "1 x cpu"
    assert {"python", "jax", "flax", "optax"} <= report["versions"].keys()


def test_model_file_has_the_configuration(tmp_path):
    config = TrainConfig(steps=7)
    directory = open_run_directory(str(tmp_path), config, experiment="toy", preset="small")
    directory.write_model({"params": {"w": np.float32([1, 2])}}, (4, 4, 1))
    described, variables = vaeflow.load(tmp_path / "model.safetensors")
    assert described == {
        "experiment": "toy",
        "preset": "small",
        "shape": [4, 4, 1],
        "config": dataclasses.asdict(config),
    }
    np.testing.assert_array_equal(variables["params"]["w"], [1, 2])


def test_model_file_has_a_shape_for_each_domain(tmp_path):
    directory = open_run_directory(str(tmp_path), TrainConfig())
    directory.write_model({"w": np.float32([1])}, {"a": (4, 4, 1), "b": (4, 4, 3)})
    described, _ = vaeflow.load(tmp_path / "model.safetensors")
    assert described["shape"] == {"a": [4, 4, 1], "b": [4, 4, 3]}
