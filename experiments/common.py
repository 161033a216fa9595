"""The command line that every experiment shares."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import logging
import re
import signal
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import tyro

from vaeflow.training import (
    HostsConfig,
    Interrupted,
    RunDirectory,
    is_first,
    join_hosts,
    open_run_directory,
)
from vaeflow.training.run_directory import run_lock

TRACEBACK = "traceback.txt"


class Expected(NamedTuple):
    """A result to hold the run's own against.

    Attributes:
      value: The figure.
      source: Where it comes from: a paper and its table, or the run that made it.
    """

    value: float
    source: str


@dataclasses.dataclass(frozen=True)
class Preset:
    """A configuration with a name; a preset is a result.

    Attributes:
      config: The configuration, a frozen dataclass with fields `data` and `train` among others.
      yields: What it trains and what comes out, for `--help`.
      cost: What it takes, such as "6 minutes on 2 CPU cores".
      expected: Results to be expected by the name of the metric, written into `report.json`.
    """

    config: Any
    yields: str
    cost: str
    expected: Mapping[str, Expected] = dataclasses.field(default_factory=dict)


class Result(NamedTuple):
    """What an experiment reports.

    Attributes:
      step: Number of updates behind the parameters that were measured.
      metrics: Figures by name.
      remark: What a reader must not miss, for the last line of the run; usually nothing.
    """

    step: int
    metrics: Mapping[str, float]
    remark: str = ""


class CommandLine(NamedTuple):
    """What a command line says.

    Attributes:
      preset: Name of the preset.
      workdir: The run's directory; empty for the usual one.
      hosts: The hosts that compute the run together.
      stage: Name of the stage to go through, or "all".
      config: The configuration, of the preset's type.
    """

    preset: str
    workdir: str
    hosts: HostsConfig
    stage: str
    config: Any


Run = Callable[..., Result | None]
ALL = "all"
"""All stages of a run."""


def main(
    name: str,
    presets: Mapping[str, Preset],
    run: Run,
    arguments: Sequence[str] | None = None,
    stages: Sequence[str] = (),
) -> None:
    """Runs an experiment from the command line and exits with a code.

    The code is 0 for a run that ended, now or before; 1 for one that couldn't, with one line on
    stderr that begins with "error:", and the traceback in the run's directory where there is one;
    2 for a wrong command line; 128 and the signal's number for one that was asked to stop.

    Args:
      name: The experiment's, as in `python -m experiments.NAME`.
      presets: Presets by name, the first being the default.
      run: Trains and measures, called as `run(config, directory)`; its result ends in
        `report.json`.
      arguments: The command line, `sys.argv[1:]` by default.
      stages: Names of the stages of a run, of which `--stage` chooses one; `run` is then called
        with `stage` as well, "all" by default, and returns None where more stages are to come.
    """
    quieten()
    given = sys.argv[1:] if arguments is None else arguments
    sys.exit(execute(name, presets, run, given, stages))


def execute(
    name: str,
    presets: Mapping[str, Preset],
    run: Run,
    arguments: Sequence[str],
    stages: Sequence[str] = (),
) -> int | str:
    """What `main` does, returning the exit code."""
    preset, workdir, hosts, stage, config = parse(name, presets, arguments, stages)
    workdir = workdir or f"runs/{name}-{preset}"
    directory = None
    with contextlib.ExitStack() as stack:
        try:
            join_hosts(hosts)
            if is_first():
                stack.enter_context(run_lock(workdir))
            else:  # all hosts compute alike; one of them speaks
                stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            directory = open_run_directory(workdir, config, experiment=name, preset=preset)
            report = directory.read_report()
            if report is not None:
                announce(f"{workdir} is finished; nothing to do")
            else:
                (directory.path / TRACEBACK).unlink(missing_ok=True)
                cost = presets[preset].cost
                announce(f"{name}, preset {preset}: {cost}; the run is kept in {workdir}")
                result = run(config, directory, **({"stage": stage} if stages else {}))
                if result is None:
                    announce(f"stage {stage} is done; the run is kept in {workdir}")
                    return 0
                expected = {key: item._asdict() for key, item in presets[preset].expected.items()}
                report = directory.write_report(
                    step=result.step,
                    metrics=result.metrics,
                    expected=expected,
                    remark=result.remark,
                )
            summarize(report, workdir)
        except Interrupted as stop:
            announce(f"{stop}; the same command goes on from there")
            return 128 + stop.signal_number
        except KeyboardInterrupt:
            announce("stopped; the same command goes on from the last checkpoint")
            return 128 + signal.SIGINT
        except (ValueError, OSError, FloatingPointError) as error:
            keep_traceback(directory)
            text = " ".join((str(error) or type(error).__name__).split())
            if isinstance(error, OSError) and error.errno and not error.filename:
                text = f"workdir {workdir} can't be used: {error.strerror}"
            say(f"error: {text}")
            return 1
    return 0


def parse(
    name: str,
    presets: Mapping[str, Preset],
    arguments: Sequence[str],
    stages: Sequence[str] = (),
) -> CommandLine:
    """Reads the command line.

    Raises:
      SystemExit: After `--help`, with code 0, and for a wrong command line, with code 2 and one
        line on stderr.
    """
    first = next(iter(presets))
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--preset", default=first)
    chosen = first
    with contextlib.suppress(argparse.ArgumentError):  # which tyro then words
        chosen = finder.parse_known_args(arguments)[0].preset
    chosen = chosen if chosen in presets else first  # tyro refuses any other below
    default = presets[chosen].config
    options = dataclasses.make_dataclass(
        "Options",
        [
            (
                "preset",
                Annotated[
                    Literal[tuple(presets)],
                    tyro.conf.arg(help="Which configuration to start from; see above."),
                ],
                chosen,
            ),
            (
                "workdir",
                Annotated[
                    str,
                    tyro.conf.arg(help="Directory of the run; runs/EXPERIMENT-PRESET if empty."),
                ],
                "",
            ),
            ("hosts", HostsConfig, HostsConfig()),
            *([("stage", _stage_of(stages), ALL)] if stages else []),
            (
                "config",
                Annotated[type(default), tyro.conf.arg(name="")],
                dataclasses.field(default=default),
            ),
        ],
        frozen=True,
    )
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed = tyro.cli(
                options,
                prog=f"python -m experiments.{name}",
                description=describe(presets),
                args=list(arguments),
            )
    except SystemExit as stop:
        if stop.code not in (0, None):
            say("error: " + one_line(said.getvalue()) + "; --help lists every option")
        raise
    except ValueError as error:  # a value that the configuration itself refuses
        say(f"error: {error}")
        raise SystemExit(2) from None
    stage = parsed.stage if stages else ALL
    return CommandLine(parsed.preset, parsed.workdir, parsed.hosts, stage, parsed.config)


def _stage_of(stages: Sequence[str]) -> Any:
    """The type of the option that chooses a stage."""
    return Annotated[
        Literal[(ALL, *stages)],
        tyro.conf.arg(help="Which stage to go through; those before it must be done."),
    ]


def describe(presets: Mapping[str, Preset]) -> str:
    """The presets, with what each yields and costs, for `--help`."""
    lines = ["Presets:"]
    for name, preset in presets.items():
        figures = [f"{key} {item.value:g} ({item.source})" for key, item in preset.expected.items()]
        text = f"{preset.yields} Costs {preset.cost}."
        if figures:
            text += f" Expected: {', '.join(figures)}."
        lines.append(
            textwrap.fill(f"{name}: {text}", 96, initial_indent="  ", subsequent_indent="      ")
        )
    return "\n".join(lines)


def one_line(box: str) -> str:
    """The message of a framed complaint as one line, with the option that was perhaps meant."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    rows = [row.strip("│ ") for row in plain.splitlines() if not row.startswith(("╭", "╰"))]
    sections: list[list[str]] = [[]]
    for row in rows:
        if row and not row.strip("─-"):
            sections.append([])
        else:
            sections[-1].append(row)
    if "╭" not in plain:  # without such characters the title isn't in the frame, but above a line
        del sections[0]
    message = " ".join(" ".join(sections[0]).split()).rstrip(".")
    meant = [
        row.split()[0]
        for section in sections[1:]
        if section and section[0].startswith(("Perhaps you meant", "Arguments similar to"))
        for row in section[1:]
        if row.startswith("--")
    ]
    return message + (f"; perhaps {' or '.join(meant)}" if meant else "")


def summarize(report: Mapping[str, Any], workdir: str) -> None:
    """Prints a report's metrics, each beside what was expected."""
    for name, value in report["metrics"].items():
        shown = "not finite" if value is None else f"{value:.4g}"
        line = f"{name}: {shown}"
        if name in report["expected"]:
            expected = report["expected"][name]
            line += f" (expected {expected['value']:.4g}, {expected['source']})"
        print(line)
    remark = f"; {report['remark']}" if report.get("remark") else ""
    print(
        f"{report['wall_seconds']:.0f} s in all; figures and report.json are in {workdir}{remark}"
    )


def say(line: str) -> None:
    """Prints a line of our own, apart from the results."""
    print(line, file=sys.stderr, flush=True)


def announce(line: str) -> None:
    """Says a line on the first host alone."""
    if is_first():
        say(line)


def keep_traceback(directory: RunDirectory | None) -> None:
    """Writes the traceback of the error at hand into the run's directory, if that is possible."""
    if directory is not None:
        with contextlib.suppress(OSError):
            (directory.path / TRACEBACK).write_text(traceback.format_exc())


def quieten() -> None:
    """Keeps the chatter of libraries off the terminal; their errors and our warnings still show."""
    for name in ("jax", "orbax", "grain", "tensorboardX"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("absl", "asyncio"):  # they print each thread's share of an error that is raised
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"(?!vaeflow|experiments)")
