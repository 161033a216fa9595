"""The training loop: runs compiled steps, and logs, evaluates, saves and resumes.

`train` compiles the step and restores the last checkpoint, if the run has a directory, and `Loop`
makes the steps. All that decides how a run goes on is in a checkpointed `LoopState`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow.training import parallel
from vaeflow.training.batches import BatchSource, groups, prefetch
from vaeflow.training.checkpoint import Checkpoint, Checkpoints
from vaeflow.training.config import TrainConfig, check_batch_size, make_optimizer
from vaeflow.training.fingerprint import fingerprint
from vaeflow.training.hosts import agree, check_same, is_first
from vaeflow.training.logging import MetricLog, OpenLogger, progress_bar, say
from vaeflow.training.parallel import Strategy
from vaeflow.training.run_directory import RunDirectory, finite_or_none
from vaeflow.training.schedule import Schedule
from vaeflow.training.signals import Interrupted, StopRequest, stop_requests
from vaeflow.training.state import LoopState, TrainState, create_train_state, variables_of
from vaeflow.training.update import Loss, Metrics, Optimizers, Step, Weights, make_train_step

if TYPE_CHECKING:
    import tqdm

PyTree = Any
Variables = dict[str, PyTree]
Evaluate = Callable[[int, Variables], Mapping[str, float]]
Figures = Callable[[int, Variables], None]


class NonFiniteError(FloatingPointError):
    """A loss or a gradient that isn't finite; the state before that step is saved."""


class TrainResult(NamedTuple):
    """The result of training.

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


def train(
    model: Any,
    losses: Loss | Mapping[str, Loss],
    batches: BatchSource,
    config: TrainConfig,
    directory: RunDirectory | None = None,
    *,
    optimizers: Optimizers | None = None,
    initialize: Callable[[], Variables] | None = None,
    weights: Weights | Mapping[str, Weights] | None = None,
    evaluate: Evaluate | None = None,
    best: str | None = None,
    figures: Figures | None = None,
    loggers: Sequence[OpenLogger] | None = None,
    progress: bool = True,
) -> TrainResult:
    """Trains up to `config.steps`, going on from the last checkpoint of `directory` if it has one.

    A run knows what it is of: a directory whose checkpoints are of other data, another model or
    other options is refused. One whose training has ended says so, and nothing is trained.

    With `config.patience` it ends earlier, after that many evaluations without improvement; a run
    that goes on from a checkpoint, and every host, ends at the same step.

    A run that was stopped, even killed, ends with the same parameters, bit for bit, as one that
    wasn't. SIGINT, SIGTERM and SIGHUP save and leave. All devices train, those of other hosts
    included.

    Args:
      model: Passed to the losses.
      losses: See `make_update`.
      batches: `Batches`, `UnpairedBatches`, or `IndexBatches` for a loss that samples its data.
      config: How to train.
      directory: The files of the run; None to write none: nothing is resumed then, signals do what
        they always do, and metrics go to `loggers` alone.
      optimizers: See `make_update`; None for `make_optimizer(config)`, for each player.
      initialize: Returns the Flax variables of step 0. It is traced for its shapes alone when a run
        is resumed, so it must be pure; jit what is costly within it, data as arguments. None for
        `model.init(jax.random.key(config.seed), x)` with the images, or vectors, x of the first
        batch; those of both domains if it has two; no x for `IndexBatches`.
      weights: See `make_update`.
      evaluate: Called as `evaluate(step, variables)` every `config.evaluate_every` steps and at
        the end, on every host; returns scalars by name, of which the first host's are logged.
      best: Name of the metric of `evaluate` by which to choose the variables to return, the lowest
        being the best; None takes those of the last step.
      figures: Called as `figures(step, variables)` at step 1, at powers of two and at the end, on
        the first host alone. `evaluate` and `figures` have `variables` on one device and may not
        keep them: the next step reuses their buffers.
      loggers: Where metrics go as well as to `metrics.jsonl`, on the first host. Each is called as
        `logger(directory, start_step)`, with the step that this session goes on from, and returns
        a `vaeflow.typing.Logger`: `TensorBoardLogger`, `WandbLogger` and `MLflowLogger`, a
        `functools.partial` of these with options, or a function of your own. One that fails later
        is left out with a warning. None for those of the directory, by default TensorBoard.
      progress: Whether to show a progress bar, and to say why training ended early.

    Returns:
      The trained variables and their evaluation.

    Raises:
      NonFiniteError: If a loss or gradient isn't finite, naming the step and the metric.
      Interrupted: After a signal, once the state is saved.
      ValueError: If `best` isn't among the metrics, a batch can't be divided over the devices, no
        checkpoint can be read, a logger can't be opened, or `initialize` is needed; with the
        differences, if the directory's run, or another host's, is of other data, another model or
        other options.
    """
    if best is not None and evaluate is None:
        raise ValueError(f"best={best!r} needs evaluate, got None")
    if config.patience and best is None:
        raise ValueError(f"train.patience={config.patience} needs best, got None")
    check_batch_size(config)
    strategy = parallel.make_strategy(config.strategy)
    if optimizers is None:
        optimizers = make_optimizer(config)
        if isinstance(losses, Mapping):
            optimizers = dict.fromkeys(losses, optimizers)
    if initialize is None:
        initialize = _default_initialize(model, batches, config)

    average = config.ema_decay > 0
    schedule = Schedule(config, evaluates=evaluate is not None, plots=figures is not None)

    with contextlib.ExitStack() as stack:
        initial = _InitialState(initialize, optimizers, average, best is not None, strategy)
        request, checkpoints = StopRequest(), None
        if directory is None:
            state = initial.make()
        else:
            request = stack.enter_context(stop_requests())
            checkpoints = stack.enter_context(Checkpoints(directory.checkpoints))
            own = fingerprint(model, losses, batches, config, initial.abstract())
            _check_what_run_is_of(own, directory, checkpoints)
            state = _restored_or_initial(initial, checkpoints)
            directory.write_fingerprint(own)
        start = int(state.train.step)
        if schedule.ends_at(start, state.evaluated_step):
            say(
                f"training in {directory.path} has ended already, at step {start}: nothing is "
                "trained"
            )
        else:
            log = stack.enter_context(MetricLog(directory, start, loggers)) if is_first() else None
            bar = stack.enter_context(progress_bar(config.steps, start, progress))
            step = make_train_step(
                model,
                losses,
                optimizers,
                seed=config.seed,
                strategy=strategy,
                weights=weights,
                ema_decay=config.ema_decay,
                accumulate=config.accumulate,
                scan_steps=config.scan_steps,
            )
            calls = _calls(batches, config.scan_steps, start, schedule.sizes(start), strategy)
            calls = stack.enter_context(contextlib.closing(calls))
            loop = Loop(state, schedule, checkpoints, log, bar, evaluate, best, figures)
            loop.run(step, calls, request)
            if state.train.step < config.steps and not bar.disable:
                say(
                    f"training ended early, after step {state.train.step}: {best} is best after "
                    f"step {state.evaluated_step}"
                )

        last = int(state.train.step)
        return TrainResult(
            variables=parallel.on_one_device(
                state.best if best else variables_of(state.train, average)
            ),
            step=state.evaluated_step if best else last,
            metrics=state.evaluation,
            state=state.train,
        )


@dataclasses.dataclass
class Loop:
    """Makes the steps of a run, and does what is due between them.

    Attributes:
      state: Where the run is; updated by `run`.
      schedule: Which step does what.
      checkpoints: Those of the run, None where nothing is written.
      log: Its log of metrics, None on hosts that write none.
      bar: Its progress bar.
      evaluate: See `train`.
      best: See `train`.
      figures: See `train`.
    """

    state: LoopState
    schedule: Schedule
    checkpoints: Checkpoints | None
    log: MetricLog | None
    bar: tqdm.tqdm
    evaluate: Evaluate | None = None
    best: str | None = None
    figures: Figures | None = None

    def run(
        self,
        compiled_step: Step,
        calls: Iterable[tuple[int, tuple[PyTree, ...]]],
        request: StopRequest,
    ) -> None:
        """Makes steps until the run ends or is asked to stop.

        Args:
          compiled_step: See `make_train_step`.
          calls: For each call, its number of steps and its arguments after the state.
          request: Whether to stop.

        Raises:
          NonFiniteError: See `train`.
          Interrupted: See `train`.
        """
        step = int(self.state.train.step)
        pending = None
        for count, arguments in calls:
            self.state.train, metrics = compiled_step(self.state.train, *arguments)
            if pending is not None:  # read one step late, while the device is busy
                self.record(*pending)
            pending = (step, count, metrics)
            step += count
            if request.agreed() or self.schedule.pauses_at(step):
                last = self.record(*pending)
                pending = None
                self.pause(step, last)
            if request.signal_number is not None and pending is None:
                self.save(step)
                raise Interrupted(step, request.signal_number)
            if self.schedule.ends_at(step, self.state.evaluated_step):
                return

    def record(self, first: int, count: int, metrics: Metrics) -> dict[str, float]:
        """Reads, checks and logs the metrics of `count` steps after step `first`.

        Returns:
          The metrics of the last of them.
        """
        arrays = jax.device_get(dict(metrics))
        names = sorted(arrays, key=lambda name: not name.endswith("loss"))  # losses first
        columns = {name: np.reshape(arrays[name], -1) for name in names}
        for position in range(count):
            step = first + position + 1
            values = {name: float(column[position]) for name, column in columns.items()}
            self.check_finite(step, values)
            if self.schedule.logs_at(step) and not self.schedule.evaluates_at(step):
                self.write(step, values)
        shown = {name: v for name, v in values.items() if not name.endswith("gradient_norm")}
        self.bar.set_description("training", refresh=False)
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(count)
        return values

    def check_finite(self, step: int, values: dict[str, float]) -> None:
        """Saves and raises at the first step whose loss or gradient isn't finite."""
        bad = {name: value for name, value in values.items() if not math.isfinite(value)}
        if not any(name.rsplit("/", 1)[-1] in ("loss", "gradient_norm") for name in bad):
            return
        train = self.state.train  # the guard of the step has kept the last good state
        finite = jax.device_put(np.ones((), bool), train.finite.sharding)
        self.state.train = train.replace(finite=finite)
        self.save(int(train.step))
        shown = ", ".join(f"{name} is {value}" for name, value in bad.items())
        message = f"step {step}: {shown}; training stopped"
        if self.checkpoints is not None:
            message += f", and the state after step {step - 1}, the last good one, is kept in "
            message += str(self.checkpoints.path)
        raise NonFiniteError(message)

    def pause(self, step: int, last: dict[str, float]) -> None:
        """Evaluates, plots and saves where this is due; `last` has the metrics of the step."""
        variables = variables_of(self.state.train, bool(self.state.train.ema))
        if self.schedule.evaluates_at(step):
            evaluation = self.evaluate(step, parallel.on_one_device(variables))
            evaluation = agree({name: float(value) for name, value in evaluation.items()})
            self.write(step, {**last, **evaluation})
            self.choose(step, evaluation, variables)
        if self.schedule.plots_at(step, self.state.evaluated_step) and is_first():
            self.figures(step, parallel.on_one_device(variables))
        if self.schedule.saves_at(step, self.state.evaluated_step):
            self.save(step)

    def choose(self, step: int, evaluation: dict[str, float], variables: Variables) -> None:
        """Keeps an evaluation: the last, or with `best` the best and its variables."""
        if self.best is not None:
            if self.best not in evaluation:
                raise ValueError(
                    f"best must be one of the metrics {sorted(evaluation)}, got {self.best!r}"
                )
            before = self.state.evaluation.get(self.best)
            if before is not None and not evaluation[self.best] < before:
                return
            self.state.best = jax.tree.map(jnp.copy, variables)  # the next step reuses the buffers
        self.state.evaluation = {name: finite_or_none(value) for name, value in evaluation.items()}
        self.state.evaluated_step = step

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs metrics, on the first host."""
        if self.log is not None:
            self.log.write(step, metrics)

    def save(self, step: int) -> None:
        """Writes a checkpoint, and before it the metrics up to it."""
        if self.checkpoints is None:
            return
        if self.log is not None:
            self.log.flush()
        self.checkpoints.save(step, Checkpoint(self.state.tree(), self.state.to_json()))


def _default_initialize(
    model: Any, batches: BatchSource, config: TrainConfig
) -> Callable[[], Variables]:
    """Initialises the model by the inputs of the first batch, the same on all hosts."""
    inputs = _first_inputs(batches)
    return lambda: jax.jit(model.init)(jax.random.key(config.seed), *inputs)


def _first_inputs(batches: BatchSource) -> list[np.ndarray]:
    """The images or vectors of the first batch, of both domains if there are two.

    Raises:
      ValueError: If a batch has other data than one array and labels.
    """
    batch = next(batches.stream(0))
    inputs = []
    for part in [batch] if "index" in batch else batch.values():
        names = [name for name in part if name not in ("index", "label", "style")]
        if len(names) > 1:
            raise ValueError(f"initialize is needed for batches of several arrays, got {names}")
        inputs += [part[name] for name in names]
    return inputs


@dataclasses.dataclass(frozen=True)
class _InitialState:
    """The arrays of the checkpoint of step 0.

    Attributes:
      initialize: See `train`.
      optimizers: See `train`.
      average: Whether moving averages are kept.
      choose: Whether the variables of the best evaluation are.
      strategy: Where the arrays are.
    """

    initialize: Callable[[], Variables]
    optimizers: Optimizers
    average: bool
    choose: bool
    strategy: Strategy

    def tree(self, variables: Variables) -> dict[str, PyTree]:
        """The arrays, from the variables."""
        train = create_train_state(variables, self.optimizers, ema=self.average)
        best = jax.tree.map(jnp.copy, variables_of(train, self.average)) if self.choose else {}
        return LoopState(train, best).tree()

    def abstract(self) -> PyTree:
        """Their shapes, types and shardings."""
        everywhere = parallel.replicated(self.strategy.mesh)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere),
            jax.eval_shape(lambda: self.tree(self.initialize())),
        )

    def make(self) -> LoopState:
        """The state."""
        everywhere = parallel.replicated(self.strategy.mesh)
        # Every host makes the same variables, which as arrays of the host may go to any device.
        variables = jax.device_get(self.initialize())
        tree = jax.jit(self.tree, out_shardings=everywhere)(variables)
        return LoopState(tree["state"], tree["best"])


def _check_what_run_is_of(
    own: dict[str, Any], directory: RunDirectory, checkpoints: Checkpoints
) -> None:
    """Compares fingerprints with the other hosts, and with the run that is gone on with."""
    check_same({"config": directory.config, **own}, "configuration, data and model")
    if checkpoints.latest_step() is not None and not directory.check_fingerprint(own):
        say(
            f"warning: the run in {directory.path}, of an earlier version, has no fingerprint: "
            "that it is of the same data and model isn't checked"
        )


def _restored_or_initial(initial: _InitialState, checkpoints: Checkpoints) -> LoopState:
    """The state of the last checkpoint, or that of step 0."""
    checkpoint, warnings = checkpoints.restore_latest(initial.abstract())
    for warning in warnings:
        say(f"warning: {warning}")
    if checkpoint is not None:
        return LoopState.from_json(checkpoint.tree, checkpoint.progress)
    return initial.make()


def _calls(
    batches: BatchSource, scan_steps: int, start: int, sizes: Iterator[int], strategy: Strategy
) -> Iterator[tuple[int, tuple[PyTree, ...]]]:
    """Yields the number of steps of each call and its arguments after the state, read ahead."""
    shard = (jax.process_index(), jax.process_count())
    if scan_steps == 1:
        stream = batches.stream(start, *shard)
        yield from prefetch((size, (strategy.place(next(stream), 0),)) for size in sizes)
        return
    examples = parallel.replicate(batches.examples(), strategy.mesh)
    plans = groups(batches.plan(start, *shard), sizes, scan_steps)
    for size, plan in prefetch((size, strategy.place(plan, 1)) for size, plan in plans):
        yield size, (examples, plan, np.int32(size))
