"""Control of latents by name: sets some in a trained model and plots the decoded image.

``python -m experiments.control RUN --set z3=2.0 --set style.0=-1 --sweep z7 --out FILE``
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _cli
from experiments._evaluation import Unit, units_of
from experiments.export import OpenedRun, functions_of, open_run
from vaeflow import data, plotting

SWEEP = np.linspace(-3, 3, 7)
"""Values of a real latent that is swept."""
LABEL = "label"
"""Name by which the label is set, in a model that is given labels."""


class State(NamedTuple):
    """Latents to decode, and a label where the model takes one."""

    z: jax.Array
    label: int | None


class CommandError(ValueError):
    """A name, a value or an image of the command line that doesn't exist."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line and plots; returns the exit code.

    The code is 0 for a figure that was saved, 1 where the run or its data can't be used and 2 for a
    wrong command line, each with one line on stderr that begins with "error:".

    Args:
      arguments: The command line, `sys.argv[1:]` by default.
    """
    _cli.quieten()
    options = _parser().parse_args(arguments)
    try:
        plot(options)
    except CommandError as error:
        return _say(error, 2)
    except (ValueError, OSError) as error:
        return _say(error, 1)
    print(f"{options.out} is saved")
    return 0


def plot(options: argparse.Namespace) -> None:
    """Opens the run, sets its latents, and saves the figure.

    Raises:
      CommandError: If a name, a value or an image doesn't exist.
      OSError, ValueError: If the run, its data or the figure can't be used.
    """
    opened = open_run(options.run)
    if not {"encode", "decode"} <= functions_of(opened).keys():
        raise ValueError(f"run {options.run} has no latents: its model is no auto-encoder")
    model = opened.module.build(opened.config, opened.shape)
    names = {unit.name: unit for unit in units_of(model)}
    if classes := getattr(model, "num_classes", None):
        names[LABEL] = Unit(LABEL, model.num_latents, classes)
    settings = [_setting(text, names) for text in options.set]
    swept = None if options.sweep is None else _unit(options.sweep, names)
    start, images, captions = _start(options, opened, model)
    changed = start
    for unit, value in settings:
        changed = _with(changed, unit, value)
    caption = "\n".join(text.replace("=", " = ") for text in options.set)
    rows, headings, side = [changed], [caption], []
    if swept is not None:
        values = range(swept.categories) if swept.categories else SWEEP
        rows = [_with(changed, swept, value) for value in values]
        headings = [f"{swept.name} = {value:g}" for value in values]
        side = [f"with\n{caption}"] if caption else []
    states = [start, *rows]
    labels = None if start.label is None else jnp.array([state.label for state in states])
    z = jnp.stack([state.z for state in states])
    given = {} if labels is None else {"context": labels}
    decoded = np.asarray(model.apply(opened.variables, z, method="decode", **given))
    columns = np.concatenate([*images, decoded])[None]
    plotting.save_figure(options.out, plotting.image_table(columns, side, [*captions, *headings]))


def _start(
    options: argparse.Namespace, opened: OpenedRun, model: Any
) -> tuple[State, list[np.ndarray], list[str]]:
    """Returns the initial state, its image if it has one, and captions of both."""
    classes = getattr(model, "num_classes", None)
    if options.prior is not None:
        if not hasattr(model, "prior"):
            raise CommandError(f"--prior: the model of {options.run} has no prior; use --image")
        label = None if classes is None else 0
        context = None if label is None else jnp.asarray(label)
        prior = model.apply(opened.variables, context=context, method="prior")
        z = prior.sample(seed=jax.random.key(options.prior))
        caption = "from the prior" if label is None else f"from the prior,\nlabel = {label}"
        return State(z, label), [], [caption]
    test = data.open_dataset(opened.config.data).test
    if not 0 <= options.image < len(test):
        raise CommandError(f"--image {options.image}: the test images are 0 to {len(test) - 1}")
    batch = test.gather(np.array([options.image]))
    given = {} if classes is None else {"context": batch["label"]}
    key, image = jax.random.key(0), batch["image"]
    z = model.apply(opened.variables, image, key, method="encode", **given)[0]
    label = None if classes is None else int(batch["label"][0])
    return State(z, label), [image], ["original", "decoded"]


def _setting(text: str, names: dict[str, Unit]) -> tuple[Unit, float]:
    """Parses ``NAME=VALUE``."""
    name, _, number = text.partition("=")
    unit = _unit(name, names)
    try:
        value = float(number)
    except ValueError:
        raise CommandError(f"--set {text}: {number!r} isn't a number") from None
    if not np.isfinite(value):
        raise CommandError(f"--set {text}: the value must be finite")
    if unit.categories and value not in range(unit.categories):
        raise CommandError(f"--set {text}: the categories are 0 to {unit.categories - 1}")
    return unit, value


def _unit(name: str, names: dict[str, Unit]) -> Unit:
    if name not in names:
        raise CommandError(
            f"no latent is called {name!r}; there are {allowed(list(names.values()))}"
        )
    return names[name]


def allowed(units: list[Unit]) -> str:
    """Abbreviates the names of latents, such as "style.0 to style.9, digit=0 to digit=9"."""
    parts: dict[str, list[str]] = {}
    for unit in units:
        if unit.categories:
            parts[unit.name] = [f"{unit.name}={k}" for k in range(unit.categories)]
        else:
            parts.setdefault(re.sub(r"\d+$", "", unit.name), []).append(unit.name)
    return ", ".join(
        names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}" for names in parts.values()
    )


def _with(state: State, unit: Unit, value: float) -> State:
    """Returns the state with one latent set; a category is a corner of its simplex."""
    if unit.name == LABEL and state.label is not None:
        return state._replace(label=int(value))
    if not unit.categories:
        return state._replace(z=state.z.at[unit.start].set(value))
    corner = jax.nn.one_hot(int(value), unit.categories, dtype=state.z.dtype)
    return state._replace(z=jax.lax.dynamic_update_slice(state.z, corner, (unit.start,)))


def _parser() -> argparse.ArgumentParser:
    first, _, _ = __doc__.partition("\n")
    parser = _Parser(prog="python -m experiments.control", description=first)
    parser.add_argument("run", metavar="RUN", help="directory of a finished run")
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a latent and its value: z3=2, style.0=-1, digit=7 or label=7, as the model has them; "
        "again for more",
    )
    parser.add_argument("--sweep", metavar="NAME", help="a latent to plot at several values")
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--image",
        metavar="N",
        type=int,
        default=0,
        help="start from this test image; 0 if not given",
    )
    start.add_argument(
        "--prior", metavar="SEED", type=int, help="start from a sample of the prior instead"
    )
    parser.add_argument(
        "--out", metavar="FILE", required=True, help="figure to write, .png or .pdf"
    )
    return parser


class _Parser(argparse.ArgumentParser):
    """Reports an error in one line."""

    def parse_args(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        """Parses; a command that changes nothing is an error."""
        options = super().parse_args(arguments)
        if not options.set and options.sweep is None:
            self.error("one of --set and --sweep is needed")
        return options

    def error(self, message: str) -> NoReturn:
        """Exits with code 2."""
        _cli.say(f"error: {message}; --help lists every option")
        raise SystemExit(2)


def _say(error: Exception, code: int) -> int:
    _cli.say("error: " + " ".join((str(error) or type(error).__name__).split()))
    return code


if __name__ == "__main__":
    sys.exit(main())
