"""The training loop: runs, logs, saves and resumes, whatever the model and the loss."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm

from vaeflow.training.batches import Batches, groups, prefetch
from vaeflow.training.checkpoint import Checkpoint, Checkpoints
from vaeflow.training.config import TrainConfig
from vaeflow.training.interrupts import Interrupted, stop_requests
from vaeflow.training.metric_log import MetricLog
from vaeflow.training.run_directory import RunDirectory, plain
from vaeflow.training.state import TrainState, create_train_state, variables_of
from vaeflow.training.step import Loss, Weights, make_scanned_train_step, make_train_step

PyTree = Any
Variables = dict[str, PyTree]


class NonFiniteError(FloatingPointError):
    """A loss or a gradient that isn't finite; the state before that step is saved."""


class FitResult(NamedTuple):
    """What training ends with.

    Attributes:
      variables: The Flax variables to use: those with the best evaluation if `best` was asked for,
        else those of the last step; moving averages if they are kept.
      step: The step that `variables` are from.
      metrics: Evaluation of `variables`, `{}` without `evaluate`; None for what isn't finite.
      state: The state after the last step.
    """

    variables: Variables
    step: int
    metrics: dict[str, float | None]
    state: TrainState


def fit(
    model: Any,
    losses: Loss | Mapping[str, Loss],
    optimizers: optax.GradientTransformation | Mapping[str, optax.GradientTransformation],
    batches: Batches,
    config: TrainConfig,
    directory: RunDirectory,
    *,
    initialize: Callable[[], Variables],
    weights: Weights | Mapping[str, Weights] | None = None,
    figures: Callable[[int, Variables], None] | None = None,
    evaluate: Callable[[int, Variables], Mapping[str, float]] | None = None,
    best: str | None = None,
) -> FitResult:
    """Trains up to `config.steps`, going on from the last checkpoint of `directory` if it has one.

    A run that was stopped, even killed, ends with the same parameters, bit for bit, as one that
    wasn't. SIGINT and SIGTERM save and leave.

    Args:
      model: Handed to the losses.
      losses: See `make_update`.
      optimizers: See `make_update`.
      batches: The training batches.
      config: How to train.
      directory: Where the run leaves its files.
      initialize: Makes the Flax variables of step 0. It is traced for its shapes alone when a run
        is resumed, so it must be pure; jit what is costly within it, data as arguments.
      weights: See `make_update`.
      figures: Called as `figures(step, variables)` at step 1, at powers of two and at the end.
      evaluate: Called as `evaluate(step, variables)` every `config.evaluate_every` steps and at
        the end; returns scalars by name, which are logged. Neither hook may keep `variables`,
        whose buffers the next step reuses.
      best: Name of the metric of `evaluate` by which to choose the variables to return, the lowest
        being the best; None takes those of the last step.

    Returns:
      The trained variables and their evaluation.

    Raises:
      NonFiniteError: If a loss or gradient isn't finite, naming the step and the metric.
      Interrupted: After a signal, once the state is saved.
      ValueError: If `best` isn't among the metrics, or no checkpoint can be read.
    """
    if best is not None and evaluate is None:
        raise ValueError(f"best={best!r} needs evaluate, got None")
    average = config.ema_decay > 0

    @jax.jit
    def around(variables: Variables) -> dict[str, PyTree]:
        state = create_train_state(variables, optimizers, ema=average)
        chosen = jax.tree.map(jnp.copy, variables_of(state, average)) if best else {}
        return {"state": state, "best": chosen}

    def create() -> dict[str, PyTree]:
        return around(initialize())

    with contextlib.ExitStack() as stack:
        request = stack.enter_context(stop_requests())
        checkpoints = stack.enter_context(Checkpoints(directory.checkpoints))
        tree, progress = _start(create, checkpoints)
        run = _Run(config, directory, checkpoints, figures, evaluate, best, **tree, **progress)
        step = int(run.state.step)
        if step < config.steps:
            run.log = stack.enter_context(MetricLog(directory, step))
            run.bar = stack.enter_context(_progress_bar(config.steps, step))
            make = make_scanned_train_step if config.scan_steps > 1 else make_train_step
            decay, seed = config.ema_decay, config.seed
            compiled = make(model, losses, optimizers, seed=seed, weights=weights, ema_decay=decay)
            pending = None
            sizes = _sizes(step, config, run.pauses_at)
            calls = _calls(batches, config.scan_steps, step, sizes)
            for count, arguments in stack.enter_context(contextlib.closing(calls)):
                run.state, metrics = compiled(run.state, *arguments)
                if pending is not None:  # read one step late, while the device is busy
                    run.record(*pending)
                pending = (step, count, metrics)
                step += count
                if request.signal_number is not None or run.pauses_at(step):
                    run.record(*pending)
                    pending = None
                    run.pause(step)
                if request.signal_number is not None and pending is None:
                    run.save(step)
                    raise Interrupted(step, request.signal_number)
        return FitResult(
            variables=run.best if best else variables_of(run.state, average),
            step=run.evaluated_step if best else step,
            metrics=run.evaluation,
            state=run.state,
        )


def _start(
    create: Callable[[], dict[str, PyTree]], checkpoints: Checkpoints
) -> tuple[dict[str, PyTree], dict[str, Any]]:
    """The trees and the progress to start from: the last checkpoint's, or those of step 0."""
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        jax.eval_shape(create),
    )
    saved, complaints = checkpoints.restore_latest(abstract)
    for complaint in complaints:
        tqdm.tqdm.write(f"warning: {complaint}", file=sys.stderr)
    if saved is not None:
        return saved.tree, saved.progress
    return jax.device_put(create(), sharding), {"evaluation": {}, "evaluated_step": 0}


def _sizes(start: int, config: TrainConfig, pauses_at: Callable[[int], bool]) -> Iterator[int]:
    """Number of steps in each call up to the end: at most `scan_steps`, none across a pause."""
    size = 0
    for step in range(start + 1, config.steps + 1):
        size += 1
        if size == config.scan_steps or pauses_at(step):
            yield size
            size = 0


def _calls(
    batches: Batches, scan_steps: int, start: int, sizes: Iterator[int]
) -> Iterator[tuple[int, tuple[PyTree, ...]]]:
    """Yields how many steps each call makes and its arguments after the state, drawn ahead."""
    if scan_steps == 1:
        stream = batches.stream(start)
        yield from prefetch((size, (jax.device_put(next(stream)),)) for size in sizes)
        return
    examples = jax.device_put(batches.examples())
    plan = groups(batches.plan(start), sizes, scan_steps)
    for size, rows in prefetch((size, jax.device_put(rows)) for size, rows in plan):
        yield size, (examples, rows, np.int32(size))


def _progress_bar(steps: int, start: int) -> tqdm.tqdm:
    """A bar on stderr, redrawn seldom where that is a file and not a terminal."""
    interval = 0.2 if sys.stderr.isatty() else 30.0
    return tqdm.tqdm(
        total=steps,
        initial=start,
        desc="compiling",
        unit="step",
        mininterval=interval,
        maxinterval=2 * interval,
        dynamic_ncols=True,
    )


@dataclasses.dataclass
class _Run:
    """A run under way: the state, and what is done with it between steps."""

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

    def draws_at(self, step: int) -> bool:
        early = step & (step - 1) == 0  # 1 and the powers of two
        return self.figures is not None and (early or step == self.config.steps)

    def evaluates_at(self, step: int) -> bool:
        every = self.config.evaluate_every
        due = step == self.config.steps or (every > 0 and step % every == 0)
        return self.evaluate is not None and due

    def saves_at(self, step: int) -> bool:
        return step % self.config.checkpoint_every == 0 or step == self.config.steps

    def pauses_at(self, step: int) -> bool:
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
                self.log.write(step, self.last)
        shown = {name: v for name, v in self.last.items() if not name.endswith("gradient_norm")}
        self.bar.set_description("training", refresh=False)
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(count)

    def check(self, step: int) -> None:
        """Stops at the first step whose loss or gradient isn't finite."""
        bad = {name: value for name, value in self.last.items() if not math.isfinite(value)}
        if not any(name.rsplit("/", 1)[-1] in ("loss", "gradient_norm") for name in bad):
            return
        self.state = self.state.replace(finite=jnp.ones_like(self.state.finite))
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
            found = {name: float(v) for name, v in self.evaluate(step, variables).items()}
            self.log.write(step, {**self.last, **found})
            self.choose(step, found, variables)
        if self.draws_at(step):
            self.figures(step, variables)
        if self.saves_at(step):
            self.save(step)

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
        progress = {"evaluation": self.evaluation, "evaluated_step": self.evaluated_step}
        tree = {"state": self.state, "best": self.best}
        self.checkpoints.save(step, Checkpoint(tree, progress))
