"""The update of all players by the gradients of their losses, with microbatches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from vaeflow._util.axis import LOCAL, Axis
from vaeflow.training.state import DEFAULT_PLAYER, Player, TrainState, by_player, merge

PyTree = Any

Part = Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]


def divide(tree: PyTree, count: int) -> PyTree:
    """Divides the rows of each leaf into parts: [rows, ...] becomes [count, rows / count, ...].

    Part i has rows i, i + count, ..., so that where the rows are divided over devices each device
    keeps its own.

    Args:
      tree: Leaves that agree in their number of rows.
      count: Number of parts.

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


def accumulate_gradients(
    function: Part, carry: PyTree, rows: PyTree, count: int
) -> tuple[PyTree, PyTree]:
    """Calls `function(carry, part) -> (carry, value)` on each part of the rows, one after another.

    Memory is that of one part.

    Args:
      function: What to call.
      carry: What the first part is called with; its structure and types don't change.
      rows: Leaves of shape [rows, ...].
      count: Number of parts; with 1 the function is called once on all rows.

    Returns:
      The last carry, and the mean of the values over the parts.

    Raises:
      ValueError: If the rows can't be divided into that many parts.
    """
    if count == 1:
        return function(carry, rows)
    parts = divide(rows, count)
    first = jax.tree.map(lambda leaf: leaf[0], parts)
    shapes = jax.eval_shape(function, carry, first)[1]
    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)

    def step(before: tuple[PyTree, PyTree], part: PyTree) -> tuple[tuple[PyTree, PyTree], None]:
        carry, total = before
        carry, value = function(carry, part)
        return (carry, jax.tree.map(jnp.add, total, value)), None

    (carry, total), _ = jax.lax.scan(step, (carry, zeros), parts)
    return carry, jax.tree.map(lambda leaf: leaf / count, total)


Batch = Mapping[str, Array]

Metrics = dict[str, Array]

Loss = Callable[..., tuple[Array, Any]]

Weights = Mapping[str, optax.ScalarOrSchedule]

Step = Callable[..., tuple[TrainState, Metrics]]


def ema_decay_at(decay: float, step: Int[Array, ""]) -> Float[Array, ""]:
    """Decay of the moving average at an update: min(decay, (1 + t) / (10 + t)).

    The bound lets the average forget the initial parameters within the first few updates, where a
    constant decay of 0.999 would still return them after a hundred.

    Args:
      decay: The decay in the long run.
      step: Number t of updates made before this one.
    """
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


def make_update(
    model: Any,
    losses: Loss | Mapping[str, Loss],
    optimizers: optax.GradientTransformation | Mapping[str, optax.GradientTransformation],
    *,
    weights: Weights | Mapping[str, Weights] | None = None,
    ema_decay: float = 0.999,
    accumulate: int = 1,
    axis: Axis = LOCAL,
) -> Step:
    """Makes the pure `update(state, batch, rng) -> (state, metrics)` that every strategy compiles.

    Players are updated in the order of `optimizers`, each by its own loss with respect to its own
    parameters, the others' being those already updated. Gradients and metrics are averaged over
    `axis`. Where a loss or a gradient isn't finite, the state is returned as it was, but for
    `finite`, which becomes False and stays so.

    Args:
      model: Handed to the losses.
      losses: A loss `(model, variables, batch, rng, *, axis, train, **weights) -> (scalar, Aux)`,
        or one for each player by name.
      optimizers: An Optax transformation, or a mapping of one for each player by name, in the
        order of update.
      weights: Keyword arguments of the loss by name, numbers or schedules of the step; where
        `optimizers` is a mapping, such a mapping for each player by name. They
        reach the loss as traced values.
      ema_decay: Decay of the moving averages, see `ema_decay_at`.
      accumulate: Number of parts of a batch to go through one after another, gradients and metrics
        being averaged; each part updates the mutable collections that the next one sees. Terms
        that couple the rows of a batch couple those of a part.
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

    def evaluated(name: str, step: Array) -> dict[str, Array]:
        return {
            key: jnp.asarray(value(step) if callable(value) else value, jnp.float32)
            for key, value in weights.get(name, {}).items()
        }

    def update(state: TrainState, batch: Batch, rng: Array) -> tuple[TrainState, Metrics]:
        players, collections = dict(state.players), dict(state.state)
        metrics: Metrics = {}
        finite = state.finite
        for position, (name, optimizer) in enumerate(optimizers.items()):
            keys = jax.vmap(jax.random.fold_in, (0, None))(rng, position) if position else rng

            def objective(
                parameters: PyTree, collections: PyTree, rows: tuple[Batch, Array], name=name
            ):
                others = {key: player.parameters for key, player in players.items()}
                return losses[name](
                    model,
                    merge({**others, name: parameters}, collections),
                    *rows,
                    axis=axis,
                    train=True,
                    **evaluated(name, state.step),
                )

            player = players[name]

            def part(collections: PyTree, rows: tuple[Batch, Array], player=player):
                gradient_of = jax.value_and_grad(objective, has_aux=True)
                (loss, aux), gradient = gradient_of(player.parameters, collections, rows)
                return {**collections, **aux.state}, (loss, gradient, dict(aux.metrics))

            collections, found = accumulate_gradients(part, collections, (batch, keys), accumulate)
            loss, gradient, scalars = axis.mean(found)
            norm = optax.tree.norm(gradient)
            finite = finite & jnp.isfinite(loss) & jnp.isfinite(norm)
            change, optimizer_state = optimizer.update(
                gradient, player.optimizer_state, player.parameters
            )
            players[name] = Player(optax.apply_updates(player.parameters, change), optimizer_state)
            prefix = "" if len(optimizers) == 1 else f"{name}/"
            own = {"loss": loss, "gradient_norm": norm, **scalars}
            metrics |= {prefix + key: value for key, value in own.items()}

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
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, state)
        return kept.replace(finite=finite), metrics

    return update
