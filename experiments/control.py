"""Sets latents of a trained model by name and draws what becomes of an image.

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

from experiments import common
from experiments.export import OpenedRun, open_run
from experiments.latent_units import Unit, units_of
from vaeflow import data, plotting

SWEEP = np.linspace(-3, 3, 7)
"""Values of a real latent that is swept."""
LABEL = "label"
"""What is set of a model that is given labels, beside its latents."""


class State(NamedTuple):
    """What is decoded: latents, and a label where the model takes one."""

    z: jax.Array
    label: int | None


class Refused(ValueError):
    """What the command line asks for isn't there."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line and draws; returns the exit code.

    The code is 0 for a figure that was drawn, 1 where the run or its data can't be used and 2 for a
    wrong command line, each with one line on stderr that begins with "error:".

    Args:
      arguments: The command line, `sys.argv[1:]` by default.
    """
    common.quieten()
    options = _parser().parse_args(arguments)
    try:
        draw(options)
    except Refused as error:
        return _say(error, 2)
    except (ValueError, OSError) as error:
        return _say(error, 1)
    print(f"{options.out} is drawn")
    return 0


def draw(options: argparse.Namespace) -> None:
    """Opens the run, sets what is to be set, and saves the figure.

    Raises:
      Refused: If a name, a value or an image isn't there.
      OSError, ValueError: If the run, its data or the figure can't be used.
    """
    opened = open_run(options.run)
    if not {"encode", "decode"} <= opened.module.functions(opened.config, opened.shape).keys():
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
    made = "\n".join(text.replace("=", " = ") for text in options.set)
    rows, headings, side = [changed], [made], []
    if swept is not None:
        values = range(swept.categories) if swept.categories else SWEEP
        rows = [_with(changed, swept, value) for value in values]
        headings = [f"{swept.name} = {value:g}" for value in values]
        side = [f"with\n{made}"] if made else []
    states = [start, *rows]
    labels = [] if start.label is None else [jnp.array([state.label for state in states])]
    z = jnp.stack([state.z for state in states])
    decoded = np.asarray(model.apply(opened.variables, z, *labels, method="decode"))
    columns = np.concatenate([*images, decoded])[None]
    plotting.save_figure(options.out, plotting.image_table(columns, side, [*captions, *headings]))


def _start(
    options: argparse.Namespace, opened: OpenedRun, model: Any
) -> tuple[State, list[np.ndarray], list[str]]:
    """What to start from, the image that it is of if any, and captions of both."""
    classes = getattr(model, "num_classes", None)
    if options.prior is not None:
        if not hasattr(model, "prior"):
            raise Refused(f"--prior: the model of {options.run} has no prior; use --image")
        label = None if classes is None else 0
        context = [] if label is None else [jnp.asarray(label)]
        prior = model.apply(opened.variables, *context, method="prior")
        z = prior.sample(seed=jax.random.key(options.prior))
        caption = "from the prior" if label is None else f"from the prior,\nlabel = {label}"
        return State(z, label), [], [caption]
    test = data.open_dataset(opened.config.data).test
    if not 0 <= options.image < len(test):
        raise Refused(f"--image {options.image}: the test images are 0 to {len(test) - 1}")
    batch = test.gather(np.array([options.image]))
    context = [] if classes is None else [batch["label"]]
    key, image = jax.random.key(0), batch["image"]
    z = model.apply(opened.variables, image, key, *context, method="encode")[0]
    label = int(context[0][0]) if context else None
    return State(z, label), [image], ["original", "decoded"]


def _setting(text: str, names: dict[str, Unit]) -> tuple[Unit, float]:
    """The latent and the value of ``NAME=VALUE``."""
    name, _, number = text.partition("=")
    unit = _unit(name, names)
    try:
        value = float(number)
    except ValueError:
        raise Refused(f"--set {text}: {number!r} isn't a number") from None
    if not np.isfinite(value):
        raise Refused(f"--set {text}: the value must be finite")
    if unit.categories and value not in range(unit.categories):
        raise Refused(f"--set {text}: the categories are 0 to {unit.categories - 1}")
    return unit, value


def _unit(name: str, names: dict[str, Unit]) -> Unit:
    if name not in names:
        raise Refused(f"no latent is called {name!r}; there are {allowed(list(names.values()))}")
    return names[name]


def allowed(units: list[Unit]) -> str:
    """The names of latents in few words, such as "style.0 to style.9, digit=0 to digit=9"."""
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
    """The state with one thing set; a category of the latents is a corner of its simplex."""
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
    parser.add_argument("--sweep", metavar="NAME", help="a latent to draw at values in a row")
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--image",
        metavar="N",
        type=int,
        default=0,
        help="start from this test image; 0 if not given",
    )
    start.add_argument(
        "--prior", metavar="SEED", type=int, help="start from a draw of the prior instead"
    )
    parser.add_argument(
        "--out", metavar="FILE", required=True, help="figure to write, .png or .pdf"
    )
    return parser


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def parse_args(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        """Parses, and refuses a command that changes nothing."""
        options = super().parse_args(arguments)
        if not options.set and options.sweep is None:
            self.error("one of --set and --sweep is needed")
        return options

    def error(self, message: str) -> NoReturn:
        """Exits with code 2."""
        common.say(f"error: {message}; --help lists every option")
        raise SystemExit(2)


def _say(error: Exception, code: int) -> int:
    common.say("error: " + " ".join((str(error) or type(error).__name__).split()))
    return code


if __name__ == "__main__":
    sys.exit(main())
