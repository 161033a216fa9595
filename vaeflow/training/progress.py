"""A run under way: the state, and what is done with it between steps."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from vaeflow.training.checkpoint import Checkpoint, Checkpoints
from vaeflow.training.config import TrainConfig
from vaeflow.training.hosts import agree, is_first
from vaeflow.training.logging import MetricLog
from vaeflow.training.run_directory import RunDirectory, plain
from vaeflow.training.state import TrainState, variables_of
from vaeflow.training.strategy import on_one_device

PyTree = Any
Variables = dict[str, PyTree]


class NonFiniteError(FloatingPointError):
    """A loss or a gradient that isn't finite; the state before that step is saved."""


@dataclasses.dataclass
class Progress:
    """The state of a run, and what it logs, measures, draws and saves on its way."""

    config: TrainConfig
    directory: RunDirectory
    checkpoints: Checkpoints
    figures: Callable[[int, Variables], None] | None
    evaluate: Callable[[int, Variables], Mapping[str, float]] | None
    best_metric: str | None
    state: TrainState
    best: Variables
    evaluation: dict[str, float | None]
    evaluated_step: int
    log: MetricLog | None = None
    bar: tqdm.tqdm | None = None
    last: dict[str, float] = dataclasses.field(default_factory=dict)

    def ends_at(self, step: int) -> bool:
        """Whether training ends after a step: the last, or an evaluation too many without a gain.

        It depends on the step and on that of the best evaluation alone, which checkpoints hold: a
        run that goes on from one ends where it would have.
        """
        patience = self.config.patience * self.config.evaluate_every
        vain = 0 < patience <= step - self.evaluated_step
        return step >= self.config.steps or (vain and self.evaluates_at(step))

    def draws_at(self, step: int) -> bool:
        """Whether figures are drawn after a step."""
        early = step & (step - 1) == 0  # 1 and the powers of two
        return self.figures is not None and (early or self.ends_at(step))

    def evaluates_at(self, step: int) -> bool:
        """Whether there is an evaluation after a step."""
        every = self.config.evaluate_every
        due = step == self.config.steps or (every > 0 and step % every == 0)
        return self.evaluate is not None and due

    def saves_at(self, step: int) -> bool:
        """Whether a checkpoint is written after a step."""
        return step % self.config.checkpoint_every == 0 or self.ends_at(step)

    def pauses_at(self, step: int) -> bool:
        """Whether anything at all is done after a step."""
        return self.draws_at(step) or self.evaluates_at(step) or self.saves_at(step)

    def record(self, first: int, count: int, metrics: Mapping[str, jax.Array]) -> None:
        """Reads, checks and logs the metrics of `count` steps after step `first`."""
        found = jax.device_get(dict(metrics))
        names = sorted(found, key=lambda name: not name.endswith("loss"))  # what matters first
        values = {name: np.reshape(found[name], -1) for name in names}
        for position in range(count):
            step = first + position + 1
            self.last = {name: float(value[position]) for name, value in values.items()}
            self.check(step)
            due = step == 1 or step % self.config.log_every == 0 or step == self.config.steps
            if due and not self.evaluates_at(step):  # there, one line holds both
                self.write(step, self.last)
        shown = {name: v for name, v in self.last.items() if not name.endswith("gradient_norm")}
        self.bar.set_description("training", refresh=False)
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(count)

    def check(self, step: int) -> None:
        """Stops at the first step whose loss or gradient isn't finite."""
        bad = {name: value for name, value in self.last.items() if not math.isfinite(value)}
        if not any(name.rsplit("/", 1)[-1] in ("loss", "gradient_norm") for name in bad):
            return
        finite = jax.device_put(np.ones((), bool), self.state.finite.sharding)
        self.state = self.state.replace(finite=finite)
        self.save(int(self.state.step))
        shown = ", ".join(f"{name} is {value}" for name, value in bad.items())
        raise NonFiniteError(
            f"step {step}: {shown}; training stopped, and the state after step {step - 1}, the "
            f"last good one, is kept in {self.directory.path}"
        )

    def pause(self, step: int) -> None:
        """Evaluates, draws and saves where this step asks for it."""
        variables = variables_of(self.state, bool(self.state.ema))
        if self.evaluates_at(step):
            found = self.evaluate(step, on_one_device(variables))
            found = agree({name: float(value) for name, value in found.items()})
            self.write(step, {**self.last, **found})
            self.choose(step, found, variables)
        if self.draws_at(step) and is_first():
            self.figures(step, on_one_device(variables))
        if self.saves_at(step):
            self.save(step)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs metrics, on the first host."""
        if self.log is not None:
            self.log.write(step, metrics)

    def choose(self, step: int, found: dict[str, float], variables: Variables) -> None:
        """Keeps an evaluation: the last, or the best if a metric to go by was named."""
        if self.best_metric is not None:
            if self.best_metric not in found:
                raise ValueError(
                    f"best must be one of the metrics {sorted(found)}, got {self.best_metric!r}"
                )
            before = self.evaluation.get(self.best_metric)
            if before is not None and not found[self.best_metric] < before:
                return
            self.best = jax.tree.map(jnp.copy, variables)  # the next step reuses the buffers
        self.evaluation = {name: plain(value) for name, value in found.items()}
        self.evaluated_step = step

    def save(self, step: int) -> None:
        """Saves all that is needed to go on from here."""
        if self.log is not None:
            self.log.flush()
        progress = {"evaluation": self.evaluation, "evaluated_step": self.evaluated_step}
        tree = {"state": self.state, "best": self.best}
        self.checkpoints.save(step, Checkpoint(tree, progress))


def progress_bar(steps: int, start: int) -> tqdm.tqdm:
    """A bar on the first host's stderr, redrawn seldom where that is a file and not a terminal."""
    interval = 0.2 if sys.stderr.isatty() else 30.0
    return tqdm.tqdm(
        total=steps,
        initial=start,
        desc="compiling",
        disable=not is_first(),
        unit="step",
        mininterval=interval,
        maxinterval=2 * interval,
        dynamic_ncols=True,
    )
