"""Command line of the experiments: presets, options, runs and their reports."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fnmatch
import io
import os
import re
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import jax
import tyro
from etils import epath

from experiments._checks import (  # noqa: F401, for the experiments
    check,
    check_batches,
    check_classes,
    check_least,
    check_numbers,
)
from experiments._process import make_output_unfailing, quieten
from vaeflow._util.messages import shown
from vaeflow.sharing import load, save
from vaeflow.training import (
    HostsConfig,
    Interrupted,
    LogConfig,
    RunDirectory,
    TrainResult,
    is_first,
    join_hosts,
    open_run_directory,
)
from vaeflow.training.fingerprint import flatten
from vaeflow.training.hosts import await_lost_host, check_same, leave_hosts
from vaeflow.training.run_directory import run_lock
from vaeflow.training.signals import handled_signals

TRACEBACK = "traceback.txt"
COMPARED = (
    *(f"data.{name}" for name in ("source", "a", "b", "fold", "image_size", "crop")),
    *("data.crop_a", "data.crop_b", "data.image", "train.steps", "prior_train.steps"),
)
"""Fields of a configuration, those of them that it has, on which an expected figure depends."""
MNIST = ("npz:mnist.npz", "npz:*/mnist.npz", "idx:*/mnist", "tfds:mnist")
"""Patterns of `data.source` for all of MNIST."""


FAILURES = (
    *(ValueError, OSError, FloatingPointError, OverflowError, MemoryError),
    jax.errors.JaxRuntimeError,
)
"""Errors of a run that are said in a line."""
LONGEST = 450
"""Characters of such a line."""


class Expected(NamedTuple):
    """A result to compare a run with.

    It is compared with runs of the preset whose fields `COMPARED` are those of the preset.

    Attributes:
      value: The figure.
      source: Where it comes from: a paper and its table, or the run that gave it.
      data: Patterns, as of file names, of the `data.source` that it was obtained with; empty for
        the preset's.
    """

    value: float
    source: str
    data: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Preset:
    """A configuration with a name; a preset is a result.

    Attributes:
      config: The configuration, a frozen dataclass with a field `train`, and mostly `data`.
      yields: The task and its results, for `--help`.
      cost: Time and machine, such as "6 minutes on 2 CPU cores".
      expected: Results to be expected by the name of the metric, written into `report.json` where
        the run is comparable.
    """

    config: Any
    yields: str
    cost: str
    expected: Mapping[str, Expected] = dataclasses.field(default_factory=dict)

    def comparable(self, config: Any) -> dict[str, dict[str, Any]]:
        """Returns the expected figures that apply to a configuration, for `report.json`.

        Each has its value, its source and its condition: the fields `COMPARED` with their values,
        for `data.source` possibly a list of patterns.
        """
        values, own = (flatten(dataclasses.asdict(each)) for each in (config, self.config))
        comparable = {}
        for metric, expected in self.expected.items():
            condition = {name: own[name] for name in COMPARED if name in own}
            if expected.data:
                condition["data.source"] = list(expected.data)
            if all(_holds(wanted, values.get(name)) for name, wanted in condition.items()):
                figure = {"value": expected.value, "source": expected.source}
                comparable[metric] = {**figure, "condition": condition}
        return comparable


def _holds(wanted: Any, value: Any) -> bool:
    if isinstance(wanted, list):
        return any(fnmatch.fnmatchcase(str(value), pattern) for pattern in wanted)
    return value == wanted


class Result(NamedTuple):
    """The report of an experiment.

    Attributes:
      step: Number of updates behind the parameters that were measured.
      metrics: Figures by name.
      remark: A caveat for the last line of the run; usually empty.
    """

    step: int
    metrics: Mapping[str, float]
    remark: str = ""


class CommandLine(NamedTuple):
    """A command line, parsed.

    Attributes:
      preset: Name of the preset.
      workdir: The run's directory; empty for the usual one.
      hosts: The hosts that compute the run together.
      log: Where its metrics go; no part of the configuration, so a run may go on with another.
      stage: Name of the stage to run, or "all".
      config: The configuration, of the preset's type.
    """

    preset: str
    workdir: str
    hosts: HostsConfig
    log: LogConfig
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
    later: Mapping[str, str] | None = None,
) -> None:
    """Runs an experiment from the command line and exits with a code.

    The code is 0 for a run that ended, now or before; 1 for one that failed, with one line on
    stderr that begins with "error:", and the traceback in the run's directory where there is one;
    2 for a wrong command line; 128 and the signal's number for one that was asked to stop.

    Args:
      name: The experiment's, as in `python -m experiments.NAME`.
      presets: Presets by name, the first being the default.
      run: Trains and measures, called as `run(config, directory)`; its result is written to
        `report.json`.
      arguments: The command line, `sys.argv[1:]` by default.
      stages: Names of the stages of a run, of which `--stage` chooses one; `run` is then called
        with `stage` as well, "all" by default, and returns None where more stages are to come.
      later: Fields of the configuration that may be corrected until their stage begins; see
        `vaeflow.training.open_run_directory`.
    """
    make_output_unfailing()
    quieten()
    words = sys.argv[1:] if arguments is None else arguments
    try:
        code = execute(name, presets, run, words, stages, later)
    except Exception:  # of a kind that the run doesn't foresee
        traceback.print_exc()
        code = 1
    if code in (1, 128 + signal.SIGINT):  # the other hosts don't know; they do of a request to stop
        leave_hosts(code)
    sys.exit(code)


def execute(
    name: str,
    presets: Mapping[str, Preset],
    run: Run,
    arguments: Sequence[str],
    stages: Sequence[str] = (),
    later: Mapping[str, str] | None = None,
) -> int:
    """Runs an experiment as `main` does and returns the exit code."""
    preset, workdir, hosts, log, stage, config = parse(name, presets, arguments, stages)
    workdir = workdir or f"runs/{name}-{preset}"
    directory = None
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(handled_signals(stop))
            join_hosts(hosts)
            words = {"experiment": name, "preset": preset, "workdir": workdir, "stage": stage}
            check_same({**words, "config": dataclasses.asdict(config)}, "options")
            if is_first():
                stack.enter_context(run_lock(workdir))
            else:  # all hosts compute the same; only the first prints
                stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            directory = open_run_directory(
                workdir, config, experiment=name, preset=preset, later=later
            )
            directory = dataclasses.replace(directory, loggers=log.loggers)
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
                report = directory.write_report(
                    step=result.step,
                    metrics=result.metrics,
                    expected=presets[preset].comparable(config),
                    remark=result.remark,
                )
            summarize(report, workdir)
        except Interrupted as stopped:
            announce(f"{stopped}; the same command goes on from there")
            return 128 + stopped.signal_number
        except KeyboardInterrupt as stopped:
            announce("stopped; the same command goes on from the last checkpoint")
            return 128 + (stopped.args[0] if stopped.args else signal.SIGINT)
        except FAILURES as error:
            await_lost_host(error)
            keep_traceback(directory)
            text = " ".join((str(error) or type(error).__name__).split())
            if isinstance(error, OSError) and error.errno and not error.filename:
                text = f"workdir {workdir} can't be used: {error.strerror}"
            say(f"error: {shown(text, LONGEST)}")
            return 1
    return 0


def stop(number: int, frame: object) -> None:
    """Handles a signal while nothing is trained.

    Raises:
      KeyboardInterrupt: With the number of the signal.
    """
    raise KeyboardInterrupt(number)


def parse(
    name: str,
    presets: Mapping[str, Preset],
    arguments: Sequence[str],
    stages: Sequence[str] = (),
) -> CommandLine:
    """Parses the command line.

    Raises:
      SystemExit: After `--help`, with code 0, and for a wrong command line, with code 2 and one
        line on stderr.
    """
    first = next(iter(presets))
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--preset", default=first)
    chosen = first
    with contextlib.suppress(argparse.ArgumentError):  # tyro reports it
        chosen = finder.parse_known_args(arguments)[0].preset
    chosen = chosen if chosen in presets else first  # an unknown one is reported by tyro as well
    default = presets[chosen].config

    def option(kind: Any, text: str) -> Any:
        return Annotated[kind, tyro.conf.arg(help=text)]

    preset = option(Literal[tuple(presets)], "Which configuration to start from; see above.")
    workdir = option(str, "Directory of the run; runs/EXPERIMENT-PRESET if empty.")
    stage = option(
        Literal[(ALL, *stages)], "Which stage to run; those before it must have been run."
    )
    config = Annotated[type(default), tyro.conf.arg(name="")]
    options = dataclasses.make_dataclass(
        "Options",
        [
            ("preset", preset, chosen),
            ("workdir", workdir, ""),
            ("hosts", HostsConfig, HostsConfig()),
            ("log", LogConfig, LogConfig()),
            *([("stage", stage, ALL)] if stages else []),
            ("config", config, dataclasses.field(default=default)),
        ],
        frozen=True,
    )
    console = io.StringIO()
    try:
        with contextlib.redirect_stderr(console):
            parsed = tyro.cli(
                options,
                prog=f"python -m experiments.{name}",
                description=describe(presets),
                args=list(arguments),
            )
        check_numbers(parsed.config)
        check(
            os.fsencode(parsed.workdir).decode(errors="replace") == parsed.workdir,
            f"workdir must be a name in UTF-8, got {parsed.workdir!r}",
        )
    except SystemExit as stop:
        if stop.code not in (0, None):
            say(f"error: {shown(one_line(console.getvalue()), LONGEST)}; --help lists every option")
        raise
    except ValueError as error:  # raised by the configuration
        say(f"error: {shown(error, LONGEST)}")
        raise SystemExit(2) from None
    return CommandLine(
        parsed.preset,
        parsed.workdir,
        parsed.hosts,
        parsed.log,
        parsed.stage if stages else ALL,
        parsed.config,
    )


def describe(presets: Mapping[str, Preset]) -> str:
    """Lists the presets, with what each yields and costs, for `--help`."""
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


def one_line(console: str) -> str:
    """Reduces tyro's framed error to its message and the options it suggests, in one line.

    tyro has no public way to get the message alone: `console_outputs=False` drops it. The frame is
    of box-drawing characters, or, on a terminal without them, of a title above a ruled section.
    """
    plain = re.sub(r"\x1b\[[0-9;]*m", "", console)
    rows = [row.strip("│ ") for row in plain.splitlines() if not row.startswith(("╭", "╰"))]
    sections: list[list[str]] = [[]]
    for row in rows:
        if row and not row.strip("─-"):
            sections.append([])
        else:
            sections[-1].append(row)
    message, *more = sections if "╭" in plain else sections[1:]
    suggestions = [
        row.split()[0]
        for section in more
        if section and section[0].startswith(("Perhaps you meant", "Arguments similar to"))
        for row in section[1:]
        if row.startswith("--")
    ]
    text = " ".join(" ".join(message).split()).rstrip(".")
    return text + (f"; perhaps {' or '.join(suggestions)}" if suggestions else "")


def summarize(report: Mapping[str, Any], workdir: str) -> None:
    """Prints a report's metrics, each with the figure expected."""
    for name, value in report["metrics"].items():
        text = "not finite" if value is None else f"{value:.4g}"
        line = f"{name}: {text}"
        if name in report["expected"]:
            expected = report["expected"][name]
            line += f" (expected {expected['value']:.4g}, {expected['source']})"
        print(line)
    remark = f"; {report['remark']}" if report.get("remark") else ""
    print(
        f"{report['wall_seconds']:.0f} s in all; figures and report.json are in {workdir}{remark}"
    )


class Part(NamedTuple):
    """A part of a model that is trained by itself: its variables, and the step they are from."""

    variables: Any
    step: int


def read_part(file: epath.Path) -> Part:
    """Reads a part of the model that was trained before."""
    described, variables = load(file)
    return Part(variables, described["step"])


def write_part(file: epath.Path, directory: RunDirectory, fitted: TrainResult) -> Part:
    """Writes a part of the model, with its step, on the first host."""
    if is_first():
        save(file, {"step": fitted.step, "config": directory.config}, fitted.variables)
    return Part(fitted.variables, fitted.step)


def say(line: str) -> None:
    """Prints a line on stderr, apart from the results."""
    print(line, file=sys.stderr, flush=True)


def announce(line: str) -> None:
    """Prints a line on stderr of the first host only."""
    if is_first():
        say(line)


def keep_traceback(directory: RunDirectory | None) -> None:
    """Writes the traceback of the current error into the run's directory, if that is possible."""
    if directory is not None:
        with contextlib.suppress(OSError):
            content = traceback.format_exc().encode(errors="backslashreplace")
            (directory.path / TRACEBACK).write_bytes(content)
