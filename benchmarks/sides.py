"""Sides of a comparison: each a process of its own that answers commands over pipes.

Libraries then share neither threads nor memory, and the parent, which imports none of them, calls
the sides in turn, so that whatever else the machine does falls on all equally.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]


class Side:
    """A process that holds the object `module.make(**options)` and calls its methods.

    Arguments and results travel as JSON. To be used in a with statement, which ends the process.
    """

    def __init__(
        self,
        module: str,
        *,
        threads: int,
        environment: Mapping[str, str] | None = None,
        **options: Any,
    ):
        """Starts the process.

        Args:
          module: Dotted name of a module with a function `make`.
          threads: Number of cores that the process may run on, and so of its threads.
          environment: Variables to set for the process beyond those of this one.
          options: Keyword arguments of `make`.
        """
        self.name = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.sides", module, str(threads), json.dumps(options)],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(BrokenPipeError):  # where it has ended by itself
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def __call__(self, command: str, *arguments: Any) -> Any:
        """Calls a method, or "memory" or "forget_peak" of this module, and returns its result.

        Raises:
          RuntimeError: If the process has ended; its traceback is on stderr.
        """
        try:
            self._process.stdin.write(json.dumps([command, arguments]) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            code = self._process.wait()
            raise RuntimeError(f"side {self.name!r} ended with code {code} at {command!r}")
        return json.loads(answer)


def memory() -> dict[str, int]:
    """Resident memory of this process in bytes: now, and at most so far.

    As the kernel counts it for the program that runs. `ru_maxrss` also counts what the parent held
    when it started this process.
    """
    status = pathlib.Path("/proc/self/status").read_text()
    names = {"resident": "VmRSS", "peak": "VmHWM"}
    return {
        name: 1024 * int(re.search(rf"{field}:\s*(\d+) kB", status)[1])
        for name, field in names.items()
    }


def forget_peak() -> None:
    """Lets the peak of `memory` restart from what is resident now."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def serve(module: str, threads: int, options: Mapping[str, Any]) -> None:
    """Answers commands from stdin until it ends."""
    # Whatever a library prints goes to stderr: stdout carries answers alone.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # Before the libraries are imported, whose pools of threads are as large as this.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    side = importlib.import_module(module).make(**options)
    own = {"memory": memory, "forget_peak": forget_peak}
    for line in sys.stdin:
        command, arguments = json.loads(line)
        call = own[command] if command in own else getattr(side, command)
        answers.write(json.dumps(call(*arguments)) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
