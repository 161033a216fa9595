"""The training step: one pure, compiled, donated function of a state and a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from vaeflow.axis import LOCAL, Axis
from vaeflow.randomness import row_keys
from vaeflow.training.state import DEFAULT_PLAYER, Player, TrainState, by_player, merge

PyTree = Any
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

            def objective(parameters: PyTree, name=name, keys=keys, collections=collections):
                others = {key: player.parameters for key, player in players.items()}
                return losses[name](
                    model,
                    merge({**others, name: parameters}, collections),
                    batch,
                    keys,
                    axis=axis,
                    train=True,
                    **evaluated(name, state.step),
                )

            player = players[name]
            (loss, aux), gradient = jax.value_and_grad(objective, has_aux=True)(player.parameters)
            loss, gradient, scalars = axis.mean((loss, gradient, dict(aux.metrics)))
            norm = optax.tree.norm(gradient)
            finite = finite & jnp.isfinite(loss) & jnp.isfinite(norm)
            change, optimizer_state = optimizer.update(
                gradient, player.optimizer_state, player.parameters
            )
            players[name] = Player(optax.apply_updates(player.parameters, change), optimizer_state)
            collections = {**collections, **aux.state}
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


def step_keys(seed: int, step: Int[Array, ""], count: int) -> Array:
    """Keys of the rows of a step's batch: `split(fold_in(key(seed), step), count)`."""
    return row_keys(jax.random.fold_in(jax.random.key(seed), step), count)


def rows_of(batch: Batch) -> int:
    """Number of examples in a batch."""
    return jax.tree.leaves(dict(batch))[0].shape[0]


def make_train_step(
    model: Any,
    losses: Loss | Mapping[str, Loss],
    optimizers: optax.GradientTransformation | Mapping[str, optax.GradientTransformation],
    *,
    seed: int,
    weights: Weights | Mapping[str, Weights] | None = None,
    ema_decay: float = 0.999,
) -> Step:
    """Compiles `step(state, batch) -> (state, metrics)`, donating the state.

    The noise of a step depends on `(seed, state.step)` alone, that of an example on its row.

    Args:
      model: See `make_update`.
      losses: See `make_update`.
      optimizers: See `make_update`.
      seed: Seed of the noise.
      weights: See `make_update`.
      ema_decay: See `make_update`.

    Returns:
      The compiled step.
    """
    update = make_update(model, losses, optimizers, weights=weights, ema_decay=ema_decay)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        return update(state, batch, step_keys(seed, state.step, rows_of(batch)))

    return jax.jit(step, donate_argnums=0)


def make_scanned_train_step(
    model: Any,
    losses: Loss | Mapping[str, Loss],
    optimizers: optax.GradientTransformation | Mapping[str, optax.GradientTransformation],
    *,
    seed: int,
    weights: Weights | Mapping[str, Weights] | None = None,
    ema_decay: float = 0.999,
) -> Step:
    """Compiles several steps into one call over examples that stay on the device.

    Args:
      model: See `make_update`.
      losses: See `make_update`.
      optimizers: See `make_update`.
      seed: Seed of the noise.
      weights: See `make_update`.
      ema_decay: See `make_update`.

    Returns:
      `steps(state, examples, plan, count) -> (state, metrics)`. `examples` holds every training
      example, `plan` the rows of up to N batches: "index", int32 [N, batch], and "flip",
      bool [N, batch], whether each image is mirrored. The first `count` are trained on, a traced
      number, so that one compilation serves any. Metrics have shape [N], zero from `count` on.
    """
    # Compiled within, so that the shapes of the metrics and the loop share one trace.
    update = jax.jit(make_update(model, losses, optimizers, weights=weights, ema_decay=ema_decay))

    def steps(
        state: TrainState, examples: Batch, plan: Batch, count: Int[Array, ""]
    ) -> tuple[TrainState, Metrics]:
        length, rows = plan["index"].shape

        def one(position: Array, state: TrainState) -> tuple[TrainState, Metrics]:
            batch = gather(examples, plan["index"][position], plan["flip"][position])
            return update(state, batch, step_keys(seed, state.step, rows))

        def body(position: Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
            state, history = carry
            state, metrics = one(position, state)
            return state, {key: history[key].at[position].set(metrics[key]) for key in history}

        shapes = jax.eval_shape(one, jnp.int32(0), state)[1]
        history = {key: jnp.zeros((length, *v.shape), v.dtype) for key, v in shapes.items()}
        return jax.lax.fori_loop(0, count, body, (state, history))

    return jax.jit(steps, donate_argnums=0)


def gather(
    examples: Batch, index: Int[Array, " batch"], flip: Bool[Array, " batch"]
) -> dict[str, Array]:
    """The batch of the rows `index`, images mirrored left to right where `flip` says so.

    Args:
      examples: Every example, each leaf of shape [examples, ...].
      index: Rows to take.
      flip: Whether each image, of shape [height, width, channel], is mirrored.
    """
    batch = {name: leaf[index] for name, leaf in examples.items()}
    image = batch["image"]
    batch["image"] = jnp.where(flip[:, None, None, None], image[:, :, ::-1], image)
    return batch
