"""The training step: the update of one player or several, and its compilation.

`make_update` returns a pure function; gradients may be accumulated over microbatches, and a step
whose loss or gradient isn't finite leaves the state unchanged. `make_train_step` compiles it by a
strategy, for one batch or for several in one call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from vaeflow._util.arrays import LOCAL, Axis
from vaeflow.training.parallel import Strategy, make_strategy
from vaeflow.training.state import DEFAULT_PLAYER, Player, TrainState, by_player, merge

PyTree = Any

Batch = Mapping[str, Array]

Metrics = dict[str, Array]

Loss = Callable[..., tuple[Array, Any]]

Weights = Mapping[str, optax.ScalarOrSchedule]

Optimizers = optax.GradientTransformation | Mapping[str, optax.GradientTransformation]

Step = Callable[..., tuple[TrainState, Metrics]]

# (parameters, collections, batch, keys) -> (loss, Aux)
_Objective = Callable[[PyTree, PyTree, Batch, Array], tuple[Array, Any]]

# (loss, gradient, metrics)
_Terms = tuple[Array, PyTree, Metrics]


def make_update(
    model: Any,
    losses: Loss | Mapping[str, Loss],
    optimizers: Optimizers,
    *,
    weights: Weights | Mapping[str, Weights] | None = None,
    ema_decay: float = 0.999,
    accumulate: int = 1,
    axis: Axis = LOCAL,
) -> Step:
    """Returns the pure `update(state, batch, rng) -> (state, metrics)` that strategies compile.

    Players are updated in the order of `optimizers`, each by the gradient of its loss with respect
    to its parameters; it sees the new parameters of the players before it. Gradients and metrics
    are averaged over `axis`. If a loss or a gradient isn't finite, the state is returned unchanged
    except for `finite`, which becomes False and stays so.

    Args:
      model: Passed to the losses.
      losses: A loss `(model, variables, batch, rng, *, axis, train, **weights) -> (scalar, Aux)`,
        or one for each player by name.
      optimizers: An Optax transformation, or a mapping of one for each player by name, in the
        order of update.
      weights: Keyword arguments of the loss by name, numbers or schedules of the step; where
        `optimizers` is a mapping, such a mapping for each player by name. They
        reach the loss as traced values.
      ema_decay: Decay of the moving averages, see `ema_decay_at`.
      accumulate: Number of microbatches; gradients and metrics are averaged over them, and each
        updates the mutable collections that the next one sees. Terms that couple the rows of a
        batch couple those of a microbatch.
      axis: The axis that the batch is divided over.

    Returns:
      The update. Its metrics are scalars: "loss", "gradient_norm" (before clipping) and those of
      the loss; with several players, each name begins with that of the player and a slash.

    Raises:
      ValueError: If the names of `losses` or `weights` aren't those of `optimizers`.
    """
    several = isinstance(optimizers, Mapping)
    losses, optimizers = by_player(losses), by_player(optimizers)
    if set(losses) != set(optimizers):
        raise ValueError(f"losses must be named {sorted(optimizers)}, got {sorted(losses)}")
    weights = dict(weights or {}) if several else {DEFAULT_PLAYER: weights or {}}
    if not set(weights) <= set(optimizers):
        raise ValueError(f"weights must be named among {sorted(optimizers)}, got {sorted(weights)}")

    def update(state: TrainState, batch: Batch, rng: Array) -> tuple[TrainState, Metrics]:
        players, collections = dict(state.players), dict(state.state)
        finite = state.finite
        metrics: Metrics = {}
        for position, (name, optimizer) in enumerate(optimizers.items()):
            keys = jax.vmap(jax.random.fold_in, (0, None))(rng, position) if position else rng
            objective = _player_objective(
                name, players, model, losses[name], weights.get(name, {}), state.step, axis
            )
            players[name], collections, terms = _player_step(
                objective, optimizer, players[name], collections, batch, keys, accumulate, axis
            )
            finite = finite & jnp.isfinite(terms["loss"]) & jnp.isfinite(terms["gradient_norm"])
            prefix = "" if len(optimizers) == 1 else f"{name}/"
            metrics |= {prefix + key: value for key, value in terms.items()}

        decay = ema_decay_at(ema_decay, state.step)
        updated = TrainState(
            step=state.step + 1,
            finite=finite,
            players=players,
            state=collections,
            ema={
                name: optax.incremental_update(players[name].parameters, average, 1.0 - decay)
                for name, average in state.ema.items()
            },
        )
        guarded = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, state)
        return guarded.replace(finite=finite), metrics

    return update


def ema_decay_at(decay: float, step: Int[Array, ""]) -> Float[Array, ""]:
    """Decay of the moving average at an update: min(decay, (1 + t) / (10 + t)).

    The bound lets the average forget the initial parameters within the first few updates, where a
    constant decay of 0.999 would still return them after a hundred.

    Args:
      decay: The decay in the long run.
      step: Number t of updates made before this one.
    """
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


def _player_objective(
    name: str,
    players: Mapping[str, Player],
    model: Any,
    loss: Loss,
    weights: Weights,
    step: Int[Array, ""],
    axis: Axis,
) -> _Objective:
    """The loss of a player as a function of its parameters, the other players' being fixed."""
    others = {key: player.parameters for key, player in players.items()}

    def objective(
        parameters: PyTree, collections: PyTree, batch: Batch, keys: Array
    ) -> tuple[Array, Any]:
        scheduled = {
            key: jnp.asarray(value(step) if callable(value) else value, jnp.float32)
            for key, value in weights.items()
        }
        variables = merge({**others, name: parameters}, collections)
        return loss(model, variables, batch, keys, axis=axis, train=True, **scheduled)

    return objective


def _player_step(
    objective: _Objective,
    optimizer: optax.GradientTransformation,
    player: Player,
    collections: PyTree,
    batch: Batch,
    keys: Array,
    accumulate: int,
    axis: Axis,
) -> tuple[Player, PyTree, Metrics]:
    """Updates one player; returns it, the mutable collections and the metrics."""
    if accumulate == 1:
        terms, collections = _gradient(objective, player.parameters, collections, batch, keys)
    else:
        terms, collections = _accumulated_gradient(
            objective, player.parameters, collections, batch, keys, accumulate
        )
    loss, gradient, metrics = axis.mean(terms)
    norm = optax.tree.norm(gradient)
    change, optimizer_state = optimizer.update(gradient, player.optimizer_state, player.parameters)
    updated = Player(optax.apply_updates(player.parameters, change), optimizer_state)
    return updated, collections, {"loss": loss, "gradient_norm": norm, **metrics}


def _gradient(
    objective: _Objective, parameters: PyTree, collections: PyTree, batch: Batch, keys: Array
) -> tuple[_Terms, PyTree]:
    """Loss, gradient and metrics on a batch, and the mutable collections after it."""
    gradient_of = jax.value_and_grad(objective, has_aux=True)
    (loss, aux), gradient = gradient_of(parameters, collections, batch, keys)
    return (loss, gradient, dict(aux.metrics)), {**collections, **aux.state}


def _accumulated_gradient(
    objective: _Objective,
    parameters: PyTree,
    collections: PyTree,
    batch: Batch,
    keys: Array,
    count: int,
) -> tuple[_Terms, PyTree]:
    """As `_gradient`: means over microbatches, evaluated one after another to save memory.

    Raises:
      ValueError: If the rows can't be divided into that many microbatches.
    """
    parts = _microbatches((batch, keys), count)
    first = jax.tree.map(lambda leaf: leaf[0], parts)
    shapes, _ = jax.eval_shape(
        lambda *rows: _gradient(objective, parameters, collections, *rows), *first
    )
    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)

    def add(carry: tuple[PyTree, _Terms], part: PyTree) -> tuple[tuple[PyTree, _Terms], None]:
        collections, total = carry
        terms, collections = _gradient(objective, parameters, collections, *part)
        return (collections, jax.tree.map(jnp.add, total, terms)), None

    (collections, total), _ = jax.lax.scan(add, (collections, zeros), parts)
    return jax.tree.map(lambda leaf: leaf / count, total), collections


def _microbatches(tree: PyTree, count: int) -> PyTree:
    """Divides the rows of each leaf: [rows, ...] becomes [count, rows / count, ...].

    Part i has rows i, i + count, ..., so that where the rows are divided over devices each device
    keeps its own.

    Raises:
      ValueError: If the rows can't be divided so.
    """

    def divided(leaf: jax.Array) -> jax.Array:
        if leaf.shape[0] % count:
            raise ValueError(
                f"accumulate must divide the rows of a batch, got {count} for {leaf.shape[0]} rows"
            )
        return jnp.swapaxes(leaf.reshape(-1, count, *leaf.shape[1:]), 0, 1)

    return jax.tree.map(divided, tree)


def make_train_step(
    model: Any,
    losses: Loss | Mapping[str, Loss],
    optimizers: Optimizers,
    *,
    seed: int,
    strategy: Strategy | None = None,
    weights: Weights | Mapping[str, Weights] | None = None,
    ema_decay: float = 0.999,
    accumulate: int = 1,
    scan_steps: int = 1,
) -> Step:
    """Compiles `step(state, batch) -> (state, metrics)`, donating the state.

    The noise of a step depends on `(seed, state.step)` alone, that of an example on its row.

    With `scan_steps` = N above 1, `steps(state, examples, plan, count) -> (state, metrics)` makes
    up to N updates in one call. `examples` holds every training example, on the device; `plan` the
    rows of N batches: "index", int32 [N, batch], and "flip", bool [N, batch], whether each image
    is mirrored; or such a plan for each domain by name. The first `count` batches are trained on;
    the count is traced, so that one compilation serves any. Metrics have shape [N], zero from
    `count` on.

    Args:
      model: See `make_update`.
      losses: See `make_update`.
      optimizers: See `make_update`.
      seed: Seed of the noise.
      strategy: Compiles the step for its devices; None for `make_strategy()`, all of them.
      weights: See `make_update`.
      ema_decay: See `make_update`.
      accumulate: See `make_update`.
      scan_steps: Largest number of updates in one call.

    Returns:
      The compiled step. Batches of several hosts, and any with pmap, are put on the devices by
      `strategy.place(batch, 0)` first; plans by `strategy.place(plan, 1)`.

    Raises:
      ValueError: As `make_update`; or if `scan_steps` is below 1, or not the length of a plan.
    """
    if scan_steps < 1:
        raise ValueError(f"scan_steps must be at least 1, got {scan_steps}")
    strategy = strategy or make_strategy()
    update = make_update(
        model,
        losses,
        optimizers,
        weights=weights,
        ema_decay=ema_decay,
        accumulate=accumulate,
        axis=strategy.axis,
    )

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        rows = jax.tree.leaves(dict(batch))[0].shape[0]
        return update(state, batch, strategy.keys(seed, state.step, rows))

    if scan_steps == 1:
        return strategy.compile(step, rows=(0,))
    update = jax.jit(update)  # the shapes of the metrics and the loop share one trace

    def steps(
        state: TrainState, examples: Batch, plan: Batch, count: Int[Array, ""]
    ) -> tuple[TrainState, Metrics]:
        length = jax.tree.leaves(plan)[0].shape[0]
        if length != scan_steps:
            raise ValueError(f"plan must have scan_steps={scan_steps} batches, got {length}")

        def step_at(position: Array, state: TrainState) -> tuple[TrainState, Metrics]:
            return step(state, gather(examples, jax.tree.map(lambda leaf: leaf[position], plan)))

        def body(position: Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
            state, history = carry
            state, metrics = step_at(position, state)
            return state, {key: history[key].at[position].set(metrics[key]) for key in history}

        shapes = jax.eval_shape(step_at, jnp.int32(0), state)[1]
        history = {key: jnp.zeros((length, *v.shape), v.dtype) for key, v in shapes.items()}
        return jax.lax.fori_loop(0, count, body, (state, history))

    return strategy.compile(steps, rows=(None, 1, None))


def gather(examples: Batch, plan: Mapping[str, Any]) -> dict[str, Any]:
    """The batch of some rows, images mirrored left to right where the plan says so.

    Args:
      examples: Every example, each leaf of shape [examples, ...]; or those of each domain by name.
      plan: "index", the rows to take, int32 [batch], and "flip", whether each image, of shape
        [height, width, channel], is mirrored, bool [batch], unused where the examples have no
        "image"; or such a plan for each domain by name.
    """
    if "index" not in plan:
        return {domain: gather(examples[domain], rows) for domain, rows in plan.items()}
    batch = {name: leaf[plan["index"]] for name, leaf in examples.items()}
    if "image" in batch:
        image = batch["image"]
        flip = plan["flip"][:, None, None, None]
        batch["image"] = jnp.where(flip, image[:, :, ::-1], image)
    return batch
