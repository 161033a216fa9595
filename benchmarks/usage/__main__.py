"""Lines and concepts of five common jobs, side by side, in scripts that are executed.

Each script is what its library's own documentation has a newcomer type, as short as that allows,
and is run in a process of its own; its result is checked, and a wrong one ends the run. Counts are
of the source, by the rules of `benchmarks.usage.counts`. Seconds, by the clock and of the
processor, are those of the whole process: imports, compilation and training by the library's own
recipe.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import tyro

from benchmarks.report import machine, table
from benchmarks.usage.counts import count
from benchmarks.usage.jobs import JOBS, Library

ROOT = pathlib.Path(__file__).resolve().parents[2]

RUN = """
import os, runpy, sys
module, *cores = sys.argv[1:]
os.sched_setaffinity(0, map(int, cores))
sys.argv = [module]
runpy.run_module(module, run_name="__main__")
"""
"""Runs a module on some cores."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Jobs and sides to run."""

    jobs: tuple[str, ...] = tuple(JOBS)
    """Names of jobs."""
    libraries: tuple[Library, ...] = ("ours", "flowjax", "zuko", "pythae")
    """Sides; all but ours need the extra bench."""
    execute: bool = True
    """Whether to run the scripts, or only to count."""
    threads: int = 2
    """Cores, and so threads, of each script."""


def main(config: Config) -> None:
    """Prints a table for each job.

    Raises:
      ValueError: If there is no job of a name.
      RuntimeError: If a script fails, or its result is wrong.
    """
    unknown = sorted(set(config.jobs) - set(JOBS))
    if unknown:
        raise ValueError(f"jobs must be among {list(JOBS)}, got {unknown}")
    machine("jax", "numpy")
    for name in config.jobs:
        print(f"\n{JOBS[name].title} (`{name}`)")
        head = (
            "side",
            "statements",
            "lines",
            "imports",
            "concepts",
            "seconds",
            "CPU, s",
            "quality",
        )
        sides = (library for library in config.libraries if library in _sides(name))
        table(head, (_row(name, library, config) for library in sides))


def _sides(name: str) -> tuple[str, ...]:
    return (*JOBS[name].libraries, *JOBS[name].without)


def _row(name: str, library: Library, config: Config) -> tuple[str, ...]:
    job = JOBS[name]
    if library in job.without:
        return (library, *"------", job.without[library])
    path = job.path(name, library)
    counts = count(path.read_text())
    cells = (counts.statements, counts.lines, counts.imports, len(counts.concepts))
    measured = ("-", "-", "-")
    if config.execute:
        elapsed, busy, found = execute(path, config.threads)
        quality = ", ".join(f"{key} {value}" for key, value in found.items())
        measured = (f"{elapsed:.0f}", f"{busy:.0f}", quality)
    return (library, *map(str, cells), *measured)


def execute(path: pathlib.Path, threads: int) -> tuple[float, float, dict[str, str]]:
    """Runs a script in a process and an empty folder of its own.

    Returns:
      The seconds of the whole process by the clock, those of the processor over all threads, and
      the quality that the script's check prints.

    Raises:
      RuntimeError: If it fails, or ends without a check; the message has the end of its errors.
    """
    cores = sorted(os.sched_getaffinity(0))[:threads]
    module = f"benchmarks.usage.{path.stem}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        start, before = time.perf_counter(), _busy()
        ended = subprocess.run(
            [sys.executable, "-c", RUN, module, *map(str, cores)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds, busy = time.perf_counter() - start, _busy() - before
    if ended.returncode:
        raise RuntimeError(f"{module} ended with code {ended.returncode}: {ended.stderr[-2000:]}")
    lines = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError(f"{module} ended without a check of its result")
    return seconds, busy, json.loads(lines[-1])


def _busy() -> float:
    """Seconds of the processor of all processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
