"""The training loop: runs, logs, saves and resumes, whatever the model and the loss."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm

from vaeflow.training.batches import Batches, IndexBatches, UnpairedBatches, groups, prefetch
from vaeflow.training.checkpoint import Checkpoints
from vaeflow.training.config import TrainConfig
from vaeflow.training.hosts import Interrupted, is_first, stop_requests
from vaeflow.training.logging import MetricLog
from vaeflow.training.progress import Progress, progress_bar
from vaeflow.training.run_directory import RunDirectory
from vaeflow.training.state import TrainState, create_train_state, variables_of
from vaeflow.training.step import make_scanned_train_step, make_train_step
from vaeflow.training.strategy import Strategy, make_strategy, on_one_device, replicate, replicated
from vaeflow.training.update import Loss, Weights

PyTree = Any
Variables = dict[str, PyTree]


class FitResult(NamedTuple):
    """What training ends with.

    Attributes:
      variables: The Flax variables to use, on one device: those with the best evaluation if `best`
        was asked for, else those of the last step; moving averages if they are kept.
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
    batches: Batches | UnpairedBatches | IndexBatches,
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

    With `config.patience` it ends earlier, once so many evaluations in a row were no better than
    the best before them; like all hosts, a run that goes on from a checkpoint decides alike.

    A run that was stopped, even killed, ends with the same parameters, bit for bit, as one that
    wasn't. SIGINT and SIGTERM save and leave. All devices train, those of other hosts included.

    Args:
      model: Handed to the losses.
      losses: See `make_update`.
      optimizers: See `make_update`.
      batches: The training batches, or row numbers for a loss that draws its own examples.
      config: How to train.
      directory: Where the run leaves its files.
      initialize: Makes the Flax variables of step 0. It is traced for its shapes alone when a run
        is resumed, so it must be pure; jit what is costly within it, data as arguments.
      weights: See `make_update`.
      figures: Called as `figures(step, variables)` at step 1, at powers of two and at the end, on
        the first host alone.
      evaluate: Called as `evaluate(step, variables)` every `config.evaluate_every` steps and at
        the end, on every host; returns scalars by name, of which the first host's are logged.
        Both hooks have `variables` on one device and may not keep them: the next step reuses
        their buffers.
      best: Name of the metric of `evaluate` by which to choose the variables to return, the lowest
        being the best; None takes those of the last step.

    Returns:
      The trained variables and their evaluation.

    Raises:
      NonFiniteError: If a loss or gradient isn't finite, naming the step and the metric.
      Interrupted: After a signal, once the state is saved.
      ValueError: If `best` isn't among the metrics, a batch can't be divided over the devices, or
        no checkpoint can be read.
    """
    if best is not None and evaluate is None:
        raise ValueError(f"best={best!r} needs evaluate, got None")
    if config.patience and best is None:
        raise ValueError(f"train.patience={config.patience} needs best, got None")
    strategy = _strategy(config)
    average = config.ema_decay > 0

    @functools.partial(jax.jit, out_shardings=replicated(strategy.mesh))
    def around(variables: Variables) -> dict[str, PyTree]:
        state = create_train_state(variables, optimizers, ema=average)
        chosen = jax.tree.map(jnp.copy, variables_of(state, average)) if best else {}
        return {"state": state, "best": chosen}

    with contextlib.ExitStack() as stack:
        request = stack.enter_context(stop_requests())
        checkpoints = stack.enter_context(Checkpoints(directory.checkpoints))
        tree, saved = _start(initialize, around, strategy, checkpoints)
        run = Progress(config, directory, checkpoints, figures, evaluate, best, **tree, **saved)
        step = int(run.state.step)
        if not run.ends_at(step):
            if is_first():
                run.log = stack.enter_context(MetricLog(directory, step))
            run.bar = stack.enter_context(progress_bar(config.steps, step))
            make = make_scanned_train_step if config.scan_steps > 1 else make_train_step
            compiled = make(
                model,
                losses,
                optimizers,
                seed=config.seed,
                strategy=strategy,
                weights=weights,
                ema_decay=config.ema_decay,
                accumulate=config.accumulate,
            )
            pending = None
            sizes = _sizes(step, config, run.pauses_at)
            calls = _calls(batches, config.scan_steps, step, sizes, strategy)
            for count, arguments in stack.enter_context(contextlib.closing(calls)):
                run.state, metrics = compiled(run.state, *arguments)
                if pending is not None:  # read one step late, while the device is busy
                    run.record(*pending)
                pending = (step, count, metrics)
                step += count
                if request.agreed() or run.pauses_at(step):
                    run.record(*pending)
                    pending = None
                    run.pause(step)
                if request.signal_number is not None and pending is None:
                    run.save(step)
                    raise Interrupted(step, request.signal_number)
                if run.ends_at(step):
                    break
        if step < config.steps and is_first():
            tqdm.tqdm.write(
                f"training ended early, after step {step}: {best} is best after step "
                f"{run.evaluated_step}",
                file=sys.stderr,
            )
        chosen = run.best if best else variables_of(run.state, average)
        return FitResult(
            variables=on_one_device(chosen),
            step=run.evaluated_step if best else step,
            metrics=run.evaluation,
            state=run.state,
        )


def _strategy(config: TrainConfig) -> Strategy:
    """The strategy on all devices, which must be able to share the rows of a batch."""
    check_batch_size(config)
    return make_strategy(config.strategy)


def check_batch_size(config: TrainConfig, name: str = "train") -> None:
    """Refuses batches that all devices can't share: what `fit` does, for parts of a run to come.

    Args:
      config: How to train.
      name: What the options of `config` begin with.

    Raises:
      ValueError: If the rows of a batch can't be divided.
    """
    devices = jax.device_count()
    if config.batch_size % (devices * config.accumulate):
        raise ValueError(
            f"{name}.batch_size must be divisible by {devices} devices times {name}.accumulate "
            f"{config.accumulate}, got {config.batch_size}"
        )


def _start(
    initialize: Callable[[], Variables],
    around: Callable[[Variables], dict[str, PyTree]],
    strategy: Strategy,
    checkpoints: Checkpoints,
) -> tuple[dict[str, PyTree], dict[str, Any]]:
    """The trees and the progress to start from: the last checkpoint's, or those of step 0."""
    whole = replicated(strategy.mesh)
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole),
        jax.eval_shape(lambda: around(initialize())),
    )
    saved, complaints = checkpoints.restore_latest(abstract)
    for complaint in complaints:
        tqdm.tqdm.write(f"warning: {complaint}", file=sys.stderr)
    if saved is not None:
        return saved.tree, saved.progress
    # Every host makes the same variables, which as arrays of the host may go to any device.
    return around(jax.device_get(initialize())), {"evaluation": {}, "evaluated_step": 0}


def _sizes(start: int, config: TrainConfig, pauses_at: Callable[[int], bool]) -> Iterator[int]:
    """Number of steps in each call up to the end: at most `scan_steps`, none across a pause."""
    size = 0
    for step in range(start + 1, config.steps + 1):
        size += 1
        if size == config.scan_steps or pauses_at(step):
            yield size
            size = 0


def _calls(
    batches: Batches | UnpairedBatches | IndexBatches,
    scan_steps: int,
    start: int,
    sizes: Iterator[int],
    strategy: Strategy,
) -> Iterator[tuple[int, tuple[PyTree, ...]]]:
    """Yields how many steps each call makes and its arguments after the state, drawn ahead."""
    shard = (jax.process_index(), jax.process_count())
    if scan_steps == 1:
        stream = batches.stream(start, *shard)
        yield from prefetch((size, (strategy.place(next(stream), 0),)) for size in sizes)
        return
    examples = replicate(batches.examples(), strategy.mesh)
    plan = groups(batches.plan(start, *shard), sizes, scan_steps)
    for size, rows in prefetch((size, strategy.place(rows, 1)) for size, rows in plan):
        yield size, (examples, rows, np.int32(size))
