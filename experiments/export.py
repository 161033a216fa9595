"""Export of the functions of a run's model: ``python -m experiments.export RUN --out FILE``.

Run it from the folder of a checkout, where the run's experiment can be imported.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

from experiments import _cli, _evaluation
from vaeflow import models, sharing


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line and exports; returns the exit code.

    The code is 0 for a file that was written and 1 for one that couldn't be, with one line on
    stderr that begins with "error:"; a wrong command line exits with 2 and such a line.

    Args:
      arguments: The command line, `sys.argv[1:]` by default.
    """
    parser = _Parser(
        prog="python -m experiments.export", description="Exports the functions of a run's model."
    )
    parser.add_argument("run", metavar="RUN", help="directory of a finished run")
    parser.add_argument("--out", metavar="FILE", required=True, help="file to write, a zip")
    options = parser.parse_args(arguments)
    try:
        names = export_run(options.run, options.out)
    except (ValueError, OSError) as error:
        _say_error(str(error) or type(error).__name__)
        return 1
    print(f"{options.out} holds {', '.join(names)} for {', '.join(sharing.PLATFORMS)}")
    return 0


def export_run(run: str, out: str) -> list[str]:
    """Writes the functions of a run's model.

    Args:
      run: Directory of the run.
      out: The file to write, as for `vaeflow.sharing.save_exported`.

    Returns:
      The names of the functions.

    Raises:
      OSError: If a file can't be read or written.
      ValueError: As for `open_run`.
    """
    opened = open_run(run)
    functions = functions_of(opened)
    sharing.save_exported(out, functions, opened.variables, opened.described)
    return list(functions)


def functions_of(opened: OpenedRun) -> dict[str, sharing.FunctionSpec]:
    """Returns the functions of a run's model, or those that its experiment defines."""
    if hasattr(opened.module, "functions"):
        return opened.module.functions(opened.config, opened.shape)
    model = opened.module.build(opened.config, opened.shape)
    names = None
    if isinstance(model, models.CodeModel):
        names = _evaluation.level_names(len(model.priors))
    return sharing.export_functions(model, level_names=names)


class OpenedRun(NamedTuple):
    """A finished run, and how to build its model.

    Attributes:
      described: The configuration in its `model.safetensors`.
      variables: The model's variables.
      module: The experiment's module.
      config: The run's configuration, of the module's `Config`.
      shape: Shape of one example of its data, or of each domain by name.
    """

    described: dict[str, Any]
    variables: dict[str, Any]
    module: ModuleType
    config: Any
    shape: tuple[int, ...] | dict[str, tuple[int, ...]]


def open_run(run: str) -> OpenedRun:
    """Reads a run's model and imports its experiment.

    Args:
      run: Directory of the run.

    Raises:
      OSError: If a file can't be read.
      ValueError: If the run has no model yet, or its experiment can't be imported, has changed
        since, or exports nothing.
    """
    path = f"{run.rstrip('/')}/model.safetensors"
    try:
        described, variables = sharing.load(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(
            f"run {run} has no model.safetensors: it isn't finished, or no run"
        ) from None
    missing = [key for key in ("experiment", "shape", "config") if key not in described]
    if missing:
        raise ValueError(f"{path} wasn't written by an experiment: it has no {', '.join(missing)}")
    module = _experiment(described["experiment"])
    config = sharing.from_json(module.Config, described["config"])
    shape = described["shape"]
    if isinstance(shape, dict):
        shape = {domain: tuple(sizes) for domain, sizes in shape.items()}
    else:
        shape = tuple(shape)
    return OpenedRun(described, variables, module, config, shape)


def _experiment(name: str) -> ModuleType:
    if not str(name).isidentifier():
        raise ValueError(f"experiment must be the name of a module of experiments/, got {name!r}")
    try:
        module = importlib.import_module(f"experiments.{name}")
    except ImportError as error:
        raise ValueError(
            f"experiments.{name} can't be imported ({error}); call this from the folder of a "
            "checkout, with vaeflow[experiments] installed"
        ) from error
    makes = hasattr(module, "build") or hasattr(module, "functions")
    if not (makes and hasattr(module, "Config")):
        raise ValueError(f"experiments.{name} exports nothing: it needs `Config` and `build`")
    return module


class _Parser(argparse.ArgumentParser):
    """Reports an error in one line."""

    def error(self, message: str) -> NoReturn:
        _say_error(f"{message}; --help lists every option")
        raise SystemExit(2)


def _say_error(message: str) -> None:
    _cli.say("error: " + " ".join(message.split()))


if __name__ == "__main__":
    sys.exit(main())
