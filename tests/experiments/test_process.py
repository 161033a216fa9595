"""The process of a command: closed and full outputs, names of files, and early signals."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments import _process

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOY = ROOT / "tests" / "training" / "toy_experiment.py"
SMALL = ("--train.steps", "2", "--train.batch-size", "8")
TINY = (*SMALL, "--data.source", "npz:digits.npz", "--classes", "4", "--train.scan-steps", "1")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def start(*command, shell=(), environment=None, **options):
    """Starts Python with a command, by a shell if one is given."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {})
    words = [*shell, sys.executable, *map(str, command)]
    return subprocess.Popen(words, env=environment, **options)


def test_streams_drop_what_nobody_reads_and_escape_what_they_lack():
    reading, writing = os.pipe()
    with open(writing, "w", encoding="ascii") as file, _process._unfailing(file) as stream:
        print("gr\xfc\xdfe", file=stream, flush=True)
        assert os.read(reading, 100) == b"gr\\xfc\\xdfe\n"
        os.close(reading)
        print("nobody", file=stream, flush=True)
    with _process._unfailing(None) as stream:
        print("nothing", file=stream, flush=True)


OUTPUTS = {
    "a closed pipe": {},
    "a full disk": {},
    "no stdout": {},
    "ASCII": {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", OUTPUTS)
def test_a_run_ends_whatever_its_output(kind):
    """The name of the directory isn't ASCII."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    workdir = "run" if kind == "ASCII" else "l\xe4ufe"
    with contextlib.ExitStack() as stack:
        if kind == "a full disk":
            full = stack.enter_context(pathlib.Path("/dev/full").open("wb"))
            options = {"stdout": full, "stderr": full}
        command = (TOY, "--workdir", workdir, *SMALL)
        # A shell closes them: Python, forked by a process with threads, might hang.
        shell = ("sh", "-c", 'exec "$@" >&- 2>&-', "sh") if kind == "no stdout" else ()
        options |= {"shell": shell, "environment": OUTPUTS[kind]}
        process = stack.enter_context(start(*command, **options))
        if kind == "a closed pipe":
            process.stdout.close()
            process.stderr.close()
            assert process.wait(120) == 0
        else:
            process.communicate(timeout=120)
            assert process.returncode == 0
    assert pathlib.Path(workdir, "report.json").exists()


@pytest.mark.slow
def test_help_may_be_cut_short():
    with start("-m", "experiments.hfvae_mnist", "--help", stdout=-1, stderr=-1) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


@pytest.mark.slow
def test_a_name_in_unicode_is_kept_under_any_locale():
    images = np.random.RandomState(0).randint(0, 256, (60, 16, 16, 1)).astype(np.uint8)
    np.savez("digits.npz", image=images, label=np.arange(60) % 4)
    options = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = ("-m", "experiments.image_classifier", "--workdir", "l\xe4ufe", *TINY)
    process = start(*words, stdout=-1, stderr=-1, environment=options)
    _, shown = process.communicate(timeout=300)
    assert process.returncode == 0, shown.decode()[-2000:]
    assert "the run is kept in l\xe4ufe" in shown.decode()
    assert pathlib.Path("l\xe4ufe/report.json").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("heeded_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("seconds", [0.5, 1.5])
def test_a_signal_during_imports_ends_with_a_line(number, seconds):
    process = start("-m", "experiments.hfvae_mnist", stdout=-1, stderr=-1)
    try:
        time.sleep(seconds)
        process.send_signal(number)
        _, shown = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert shown.decode().splitlines()[-1].startswith("stopped")
    assert b"Traceback" not in shown
