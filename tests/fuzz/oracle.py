"""One oracle for hostile inputs of all readers: an error that names the file, or the right data.

`python -m tests.fuzz.oracle SOURCE:START:STOP ...` makes and reads inputs, one by one, in a process
that `problems_of` watches: a crash or a hang is the problem of the input that it was at.
"""

from __future__ import annotations

import functools
import importlib
import json
import pathlib
import queue
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]

MARK = "fuzzed"
"""Part of the names of all files and folders that are read, which errors must show."""

MOST_CHARACTERS = 500

MOST_BYTES = 512 * 2**20

MOST_SECONDS = 10
"""Of computation: a process that takes more is ended by the system."""

_SILENCE = 120  # seconds without a result, of a process that waits for ever


class Input(NamedTuple):
    """A file or a folder, and how to read it.

    Attributes:
      title: How it was made.
      read: Reads it.
      right: Whether what was read is right; None where it must be refused.
    """

    title: str
    read: Callable[[], Any]
    right: Callable[[Any], bool] | None


Source = Callable[[np.random.Generator, pathlib.Path], Input]
"""Makes an input in an empty folder: "npz" is `make` of the module `tests.fuzz.npz`."""


def problem_of(made: Input) -> str | None:
    """Reads an input; returns how the oracle is violated, if it is."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    try:
        result = made.read()
    except ValueError as error:
        problem = _problem_of_message(str(error))
    except Exception as error:
        problem = f"{type(error).__name__}: {str(error)[:300]}"
    else:
        right = made.right is not None and made.right(result)
        problem = None if right else "read as other data than it holds"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if problem is None and (peak := _peak()) > MOST_BYTES:
        problem = f"took {peak / 2**20:.0f} MiB"
    return problem


def _problem_of_message(message: str) -> str | None:
    if len(message) > MOST_CHARACTERS:
        return f"a message of {len(message)} characters: {message[:300]}"
    if not message.isprintable():
        return f"a message that isn't printable: {message!r}"
    return None if MARK in message else f"a message that doesn't name the file: {message}"


def _peak() -> int:
    status = pathlib.Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in status if line.startswith("VmHWM:")]
    return 1024 * int(line.split()[1])


def _run(shares: list[str]) -> None:
    """Makes and reads inputs; prints a line of JSON before and after each."""
    warnings.simplefilter("ignore")
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + 2**34
    resource.setrlimit(resource.RLIMIT_AS, (most, most))  # nothing here may exhaust the machine
    for share in shares:
        name, start, stop = share.split(":")
        make: Source = importlib.import_module(f"tests.fuzz.{name}").make
        for index in range(int(start), int(stop)):
            folder = pathlib.Path(tempfile.mkdtemp(prefix="inputs-"))
            try:
                made = make(np.random.default_rng([index, *name.encode()]), folder)
                print(json.dumps([name, index, made.title]), flush=True)
                print(json.dumps(problem_of(made)), flush=True)
            finally:
                shutil.rmtree(folder, ignore_errors=True)


def problems_of(**counts: int) -> Iterator[str]:
    """Reads the first inputs of each source; yields a line for each that violates the oracle."""
    waiting = [(name, 0, count) for name, count in counts.items()]
    while waiting:
        process = _Watched([f"{name}:{start}:{stop}" for name, start, stop in waiting])
        with process:
            for name, index, title, problem in process.results():
                while waiting[0][0] != name:
                    del waiting[0]
                waiting[0] = (name, index + 1, waiting[0][2])
                if problem is not None:
                    yield f"{name} {index}, {title}: {problem}"
        if process.ended_well:
            return


class _Watched:
    """A process that makes and reads inputs."""

    def __init__(self, shares: list[str]) -> None:
        command = [sys.executable, "-m", "tests.fuzz.oracle", *shares]
        self.ended_well = False
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._errors: list[str] = []
        read_lines = functools.partial(self._forward, self._process.stdout, self._lines.put)
        read_errors = functools.partial(self._forward, self._process.stderr, self._errors.append)
        self._threads = [threading.Thread(target=read) for read in (read_lines, read_errors)]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _forward(stream, put) -> None:
        for line in stream:
            put(line)
        put("")

    def __enter__(self) -> _Watched:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join()
        self._process.stdout.close()
        self._process.stderr.close()

    def _line(self) -> str:
        try:
            return self._lines.get(timeout=_SILENCE)
        except queue.Empty:
            return "silent"

    def results(self) -> Iterator[tuple[str, int, str, str | None]]:
        """The inputs that it reads, each with its problem, if only that it ended the process."""
        while (line := self._line()) not in ("", "silent"):
            name, index, title = json.loads(line)
            line = self._line()
            if line == "silent":
                yield name, index, title, "it waits for ever"
                return
            if not line:
                code = self._process.wait()
                slow = code == -signal.SIGPROF
                end = "took too long" if slow else f"the process ended with {code}"
                yield name, index, title, end
                return
            yield name, index, title, json.loads(line)
        assert not line, "no input was made"
        code = self._process.wait()
        assert code == 0, f"code {code} between inputs: {''.join(self._errors)[-2000:]}"
        self.ended_well = True


if __name__ == "__main__":
    _run(sys.argv[1:])
