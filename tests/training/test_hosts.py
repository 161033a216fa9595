"""Hosts that join, agree, and end with a line when one of them is lost or never comes."""

from __future__ import annotations

import errno
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from experiments import _cli
from tests.training.divided import PRESETS
from tests.training.test_devices import end, free_address, run_hosts, start_hosts
from vaeflow.training.hosts import HostsConfig, lost_hosts

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--hosts.count", "2"), "hosts.coordinator must be ADDRESS:PORT for 2 hosts"),
        (("--hosts.count", "0"), "hosts.count must be at least 1, got 0"),
        (("--hosts.index", "1"), "hosts.index must be in 0..0, got 1"),
    ],
)
def test_invalid_hosts_raise(tmp_path, capsys, options, expected):
    with pytest.raises(SystemExit) as stop:
        _cli.execute("divided", PRESETS, None, ["--workdir", str(tmp_path), *options])
    assert stop.value.code == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("address", ["there", "there:", ":80", "there:0", "there:65536", "there:x"])
def test_addresses_without_a_port_raise(address):
    with pytest.raises(ValueError, match="coordinator must be ADDRESS:PORT with a port in 1"):
        HostsConfig(address, 2)
    with pytest.raises(ValueError, match="got '::1:80'"):
        HostsConfig("::1:80", 2)
    for known in ("there:80", "10.0.0.1:65535", "[::1]:80"):
        HostsConfig(known, 2)


def test_lost_hosts_are_read_from_the_message_of_the_service():
    service = "UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):\n"
    after = "The tasks have crashed. Check the task logs for an earlier error.\n"
    assert lost_hosts(f"absl::Status: {service}1\n{after}") == [1]
    assert lost_hosts(f"{service}/job:jax_worker/replica:0/task:12\n3\n{after}") == [3, 12]
    assert lost_hosts("UNAVAILABLE: Failed to send RPC to coordination service. Either ") == [0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("last", "shown"),
    [
        (("--train.learning-rate", "0.3"), "train.learning_rate: 0.01 on host 0, 0.3 on host 1"),
        (("--train.batch-size", "32"), "train.batch_size: 16 on host 0, 32 on host 1"),
        (("--preset", "glow"), 'preset: "coupled" on host 0, "glow" on host 1'),
    ],
)
def test_hosts_with_different_options_train_nothing(tmp_path, last, shown):
    for code, line in map(end, start_hosts(tmp_path, devices=2, last=last)):
        assert code == 1
        assert line.startswith("error: all hosts must have the same options (")
        assert shown in line
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.slow
def test_hosts_with_different_data_train_nothing(tmp_path):
    for code, line in run_hosts(tmp_path, "--other-data"):
        assert code == 1
        assert line.startswith("error: all hosts must have the same configuration, data and model")
        assert "data.source.digest: " in line
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_host_is_named_by_the_others(tmp_path, victim):
    options = ("--train.steps", "100000", "--train.batch-size", "24")
    processes = start_hosts(tmp_path, *options, count=3)
    try:
        while not (tmp_path / "metrics.jsonl").exists():
            assert all(process.poll() is None for process in processes)
            time.sleep(0.1)
        processes[victim].send_signal(signal.SIGKILL)
        ends = [end(process, 60) for process in processes]  # within a minute, or an error
    finally:
        for process in processes:
            process.kill()
    for index, (code, line) in enumerate(ends):
        if index == victim:
            assert code == -signal.SIGKILL
        else:
            assert code == 1
            assert line.startswith(f"error: host {victim} of 3 ")
            assert "can't be reached any more" in line


WAIT = """
import sys
from vaeflow.training import hosts
hosts.JOINING_SECONDS = 3
hosts.join_hosts(hosts.HostsConfig(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


def wait(address, count, index):
    """Waits for others, for three seconds; returns the code and the lines on stderr."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WAIT, address, str(count), str(index)]
    process = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    return process.returncode, [line for line in process.stderr.splitlines() if line]


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_hosts_say_what_they_wait_for_and_give_up(index):
    address = free_address()
    awaited = f"the coordinator at {address}" if index else "the other 2 hosts"
    code, lines = wait(address, 3, index)
    assert code == 1
    assert lines[0] == f"host {index} of 3 waits for {awaited}, for up to 3 s"
    assert lines[1].startswith(f"error: host {index} waited 3 s for {awaited} in vain; ")
    assert len(lines) == 2


@pytest.mark.slow
def test_a_port_in_use_raises():
    with socket.create_server(("", 0)) as server:
        address = f"localhost:{server.getsockname()[1]}"
        code, lines = wait(address, 2, 0)
    assert code == 1
    reason = os.strerror(errno.EADDRINUSE)
    assert lines[-1].startswith(f"ValueError: hosts.coordinator {address} can't be used: {reason}")
