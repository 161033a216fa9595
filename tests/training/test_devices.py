"""Runs on eight devices, under pmap and on two hosts have the losses and state of one device."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).with_name("divided.py")
KILLED = ("--kill-at", "10")
LARGEST = 6000
"""Bytes that metrics take less than, and a checkpoint more."""

LIMITED = """
import resource, runpy, sys
largest = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start(workdir, *options, devices=1, hosts=(), largest_file=None) -> subprocess.Popen:
    """Starts a process with that many devices."""

    root = SCRIPT.parent.parent.parent
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "PYTHONPATH": str(root)}
    python = [sys.executable]
    if largest_file:
        environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # its files are large
        python += ["-c", LIMITED, str(largest_file)]
    command = [*python, str(SCRIPT), "--workdir", str(workdir), *options, *hosts]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def end(process: subprocess.Popen, seconds: float = 200) -> tuple[int, str]:
    """The code and the last line that a process leaves on stderr."""
    try:
        _, error = process.communicate(timeout=seconds)
    finally:
        process.kill()  # hosts that wait for each other don't end by themselves
    return process.returncode, (error.strip().splitlines() or [""])[-1]


def run(workdir, *options, devices=1) -> tuple[int, str]:
    """Runs on one host."""
    return end(start(workdir, *options, devices=devices))


def free_address() -> str:
    """An address of this machine with a port that nothing uses."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def start_hosts(workdir, *options, count=2, devices=4, last=()) -> list[subprocess.Popen]:
    """Starts several hosts, the last of them with more options."""
    together = ("--hosts.coordinator", free_address(), "--hosts.count", str(count))
    return [
        start(
            workdir,
            *options,
            *(last if index == count - 1 else ()),
            devices=devices,
            hosts=(*together, "--hosts.index", str(index)),
        )
        for index in range(count)
    ]


def run_hosts(workdir, *options, count=2, devices=4) -> list[tuple[int, str]]:
    """Runs on several hosts."""
    return [
        end(process) for process in start_hosts(workdir, *options, count=count, devices=devices)
    ]


def losses(workdir) -> list[tuple[float, ...]]:
    """Each step, and the loss of each player there."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    names = ("step", "loss", "discriminator/loss", "generator/loss")
    return [tuple(line[name] for name in names if name in line) for line in lines]


def gradient_norms(workdir) -> np.ndarray:
    """That of MUNIT's auto-encoders, at each step."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return np.array([line["generator/gradient_norm"] for line in lines])


def assert_agree(actual, expected, of_losses=1e-5, of_state=1e-5, of_generator=None) -> None:
    """Losses agree relatively; every leaf of the state relatively to its largest entry."""
    assert [step for step, *_ in losses(actual)] == list(range(1, 21))
    np.testing.assert_allclose(losses(actual), losses(expected), rtol=of_losses)
    with np.load(actual / "state.npz") as state, np.load(expected / "state.npz") as other:
        assert set(state) == set(other)
        assert any("ema" in name for name in state)
        for name in state:
            of_leaf = of_generator if of_generator and "'generator'" in name else of_state
            allowed = of_leaf * np.abs(other[name]).max()
            np.testing.assert_allclose(state[name], other[name], 0, allowed, err_msg=name)


@pytest.fixture(scope="module")
def coupled(tmp_path_factory):
    """The coupled loss on one device."""
    path = tmp_path_factory.mktemp("coupled")
    assert run(path)[0] == 0
    return path


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run of the coupled loss on one device that was killed at step 10."""
    path = tmp_path_factory.mktemp("killed")
    assert run(path, *KILLED)[0] == -9
    return path


@pytest.fixture(scope="module")
def glow(tmp_path_factory):
    """The Glow on one device."""
    path = tmp_path_factory.mktemp("glow")
    assert run(path, "--preset", "glow")[0] == 0
    return path


@pytest.fixture(scope="module")
def quantizers(tmp_path_factory):
    """The quantizers on one device."""
    path = tmp_path_factory.mktemp("quantizers")
    assert run(path, "--preset", "quantizers")[0] == 0
    return path


@pytest.fixture(scope="module")
def munit(tmp_path_factory):
    """The MUNIT on one device."""
    path = tmp_path_factory.mktemp("munit")
    assert run(path, "--preset", "munit")[0] == 0
    return path


@pytest.mark.parametrize(
    ("preset", "strategy"),
    [
        ("coupled", "pmap"),
        *(
            pytest.param(preset, strategy, marks=pytest.mark.slow)
            for preset in ("coupled", "glow", "quantizers", "munit")
            for strategy in ("jit", "pmap")
            if (preset, strategy) != ("coupled", "pmap")
        ),
    ],
)
def test_eight_devices_equal_one(request, tmp_path, preset, strategy):
    options = ("--preset", preset, "--train.strategy", strategy)
    code, line = run(tmp_path, *options, devices=8)
    assert code == 0, line
    assert json.loads((tmp_path / "report.json").read_text())["metrics"]["devices"] == 8
    expected = request.getfixturevalue(preset)
    if preset != "munit":
        assert_agree(tmp_path, expected)
        return
    # A difference of images that is rounded to the other side of zero turns a slope of its absolute
    # value, and with it the gradient of a single step: most steps have none.
    assert_agree(tmp_path, expected, of_generator=5e-2)
    off = np.abs(gradient_norms(tmp_path) / gradient_norms(expected) - 1)
    assert np.sum(off > 1e-5) <= 8
    assert off.max() < 5e-3


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["jit", "pmap"])
@pytest.mark.parametrize("preset", ["coupled", "glow"])
def test_two_hosts_equal_one(request, tmp_path, preset, strategy):
    ends = run_hosts(tmp_path, "--preset", preset, "--train.strategy", strategy)
    assert [code for code, _ in ends] == [0, 0], ends
    metrics = json.loads((tmp_path / "report.json").read_text())["metrics"]
    assert (metrics["devices"], metrics["hosts"]) == (8, 2)
    assert_agree(tmp_path, request.getfixturevalue(preset))


@pytest.mark.slow
def test_scanned_microbatches_on_several_devices_equal_one(tmp_path):
    """Steps of one call, in two parts each, on any number of devices."""
    options = ("--train.scan-steps", "4", "--train.accumulate", "2")
    paths = [tmp_path / name for name in ("one", "jit", "pmap")]
    assert run(paths[0], *options)[0] == 0
    for path in paths[1:]:
        assert run(path, *options, "--train.strategy", path.name, devices=8)[0] == 0
        assert_agree(path, paths[0])


@pytest.mark.slow
def test_run_resumes_on_more_devices(tmp_path, coupled, killed):
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    assert run(tmp_path, *KILLED, devices=8)[0] == 0
    assert json.loads((tmp_path / "report.json").read_text())["metrics"]["devices"] == 8
    assert_agree(tmp_path, coupled)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["jit", "pmap"])
def test_run_resumes_on_other_numbers_of_devices(tmp_path, coupled, strategy):
    options = ("--train.strategy", strategy, "--kill-at", "5", "10", "15")
    for devices in (8, 2, 1):
        assert run(tmp_path, *options, devices=devices)[0] == -9
    assert run(tmp_path, *options, devices=8)[0] == 0
    assert_agree(tmp_path, coupled)


@pytest.mark.slow
def test_signal_to_one_host_stops_all_and_one_resumes(tmp_path, coupled):
    options = ("--stop-at", "5")
    for code, line in run_hosts(tmp_path, *options):
        assert code == 143, line
    saved = [int(path.name) for path in (tmp_path / "checkpoints").iterdir()]
    assert 5 <= max(saved) < 20
    assert run(tmp_path, *options)[0] == 0
    assert_agree(tmp_path, coupled)


def test_two_hosts_stop_early_together(tmp_path, coupled):
    """What the first host measures counts: it grows from the first evaluation, at step 5, on."""
    ends = run_hosts(tmp_path, "--contrary", "--train.patience", "2")
    assert [code for code, _ in ends] == [0, 0], ends
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["step"] == 5
    assert (report["metrics"]["devices"], report["metrics"]["hosts"]) == (8, 2)
    np.testing.assert_allclose(losses(tmp_path), losses(coupled)[:15], rtol=1e-5)
    assert max(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == 15


@pytest.mark.slow
def test_full_disk_raises_and_keeps_checkpoints(tmp_path, coupled, killed):
    """No file may grow beyond a size that a checkpoint needs."""
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    # The signal may have come while one was being written; the next run clears that away.
    saved = {path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()}
    assert saved
    full = start(tmp_path, *KILLED, largest_file=LARGEST)
    _, shown = full.communicate(timeout=200)
    *before, line = shown.strip().splitlines()
    assert full.returncode == 1
    assert line.startswith(f"error: no checkpoint can be written to {tmp_path}/checkpoints (")
    assert "File too large" in line
    bars = ("compiling: ", "training: ")
    assert len([part for part in before if part and not part.startswith(bars)]) == 1
    assert saved <= {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert run(tmp_path, *KILLED)[0] == 0
    assert_agree(tmp_path, coupled, 0, 0)


@pytest.mark.slow
def test_indivisible_batch_size_raises(tmp_path):
    code, line = run(tmp_path, "--train.accumulate", "4", devices=8)
    assert code == 1
    assert line == (
        "error: train.batch_size must be divisible by 8 devices times train.accumulate 4, got 16"
    )
