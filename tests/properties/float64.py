"""Cases in a process where float64 is on: ``python -m tests.properties.float64 flows``."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Iterator
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)


def programs(kind: Any) -> Iterator[Any]:
    """Yields a program of each subject in float64, and of every other one in float32 too."""
    for index, subject in enumerate(kind.SUBJECTS):
        of_subject = [each for each in kind.PROGRAMS if each.subject is subject]
        alone = [each for each in of_subject if 0 not in each.batch and each.dimension < 200]
        yield dataclasses.replace(alone[0], dtype="float64", members=0)
        if index % 2:
            yield dataclasses.replace(alone[-1], dtype="float32", members=0)


def main() -> None:
    """Runs the programs of the kinds that are named; prints a line for each violation."""
    cases = problems = 0
    for name in sys.argv[1:]:
        kind = importlib.import_module(f"tests.properties.{name}")
        for program in programs(kind):
            found = kind.problems(program)
            cases, problems = cases + program.num_cases, problems + len(found)
            print(*found, sep="\n", end="\n" if found else "", flush=True)
    print(f"{cases} cases, {problems} problems")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
