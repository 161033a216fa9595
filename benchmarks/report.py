"""Tables to paste, and the machine that they were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import re
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a Markdown table, each row as soon as it comes."""
    print()
    _row(head)
    _row(["---"] * len(head))
    for row in rows:
        _row(row)
    print(flush=True)


def _row(cells: Sequence[object]) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def machine(*packages: str) -> None:
    """Prints the processor, its cores, the memory, the load and the versions of packages."""
    model = re.search(r"model name\s*: (.+)", pathlib.Path("/proc/cpuinfo").read_text())
    gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {importlib.metadata.version(name)}" for name in packages]
    print(
        f"Machine: {model[1] if model else platform.machine()}, "
        f"{len(os.sched_getaffinity(0))} cores, {gibibytes:.0f} GiB; load at the start "
        f"{os.getloadavg()[0]:.1f}. {', '.join(versions)}."
    )
