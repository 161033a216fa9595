"""Training steps: an update compiled by a strategy, for one batch or for several in one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from vaeflow.training.state import TrainState
from vaeflow.training.strategy import Strategy, make_strategy
from vaeflow.training.update import Batch, Loss, Metrics, Step, make_update


def rows_of(batch: Batch) -> int:
    """Number of examples in a batch."""
    return jax.tree.leaves(dict(batch))[0].shape[0]


def make_train_step(
    model: Any,
    losses: Loss | Mapping[str, Loss],
    optimizers: optax.GradientTransformation | Mapping[str, optax.GradientTransformation],
    *,
    seed: int,
    strategy: Strategy | None = None,
    **options: Any,
) -> Step:
    """Compiles `step(state, batch) -> (state, metrics)`, donating the state.

    The noise of a step depends on `(seed, state.step)` alone, that of an example on its row.

    Args:
      model: See `make_update`.
      losses: See `make_update`.
      optimizers: See `make_update`.
      seed: Seed of the noise.
      strategy: Compiles the step for its devices; None for `make_strategy()`, all of them.
      **options: `weights`, `ema_decay` and `accumulate` of `make_update`.

    Returns:
      The compiled step. Batches of several hosts, and any with pmap, are put on the devices by
      `strategy.place(batch, 0)` first.
    """
    strategy = strategy or make_strategy()
    update = make_update(model, losses, optimizers, axis=strategy.axis, **options)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        return update(state, batch, strategy.keys(seed, state.step, rows_of(batch)))

    return strategy.compile(step, rows=(0,))


def make_scanned_train_step(
    model: Any,
    losses: Loss | Mapping[str, Loss],
    optimizers: optax.GradientTransformation | Mapping[str, optax.GradientTransformation],
    *,
    seed: int,
    strategy: Strategy | None = None,
    **options: Any,
) -> Step:
    """Compiles several steps into one call over examples that stay on the device.

    Args:
      model: See `make_update`.
      losses: See `make_update`.
      optimizers: See `make_update`.
      seed: Seed of the noise.
      strategy: Compiles the step for its devices; None for `make_strategy()`, all of them.
      **options: `weights`, `ema_decay` and `accumulate` of `make_update`.

    Returns:
      `steps(state, examples, plan, count) -> (state, metrics)`. `examples` holds every training
      example, `plan` the rows of up to N batches: "index", int32 [N, batch], and "flip",
      bool [N, batch], whether each image is mirrored; or both hold that by domain. The first
      `count` are trained on, a traced number, so that one compilation serves any. Metrics have
      shape [N], zero from `count` on.
    """
    strategy = strategy or make_strategy()
    update = make_update(model, losses, optimizers, axis=strategy.axis, **options)
    update = jax.jit(update)  # so that the shapes of the metrics and the loop share one trace

    def steps(
        state: TrainState, examples: Batch, plan: Batch, count: Int[Array, ""]
    ) -> tuple[TrainState, Metrics]:
        length, rows = jax.tree.leaves(plan)[0].shape

        def one(position: Array, state: TrainState) -> tuple[TrainState, Metrics]:
            batch = gather(examples, jax.tree.map(lambda leaf: leaf[position], plan))
            return update(state, batch, strategy.keys(seed, state.step, rows))

        def body(position: Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
            state, history = carry
            state, metrics = one(position, state)
            return state, {key: history[key].at[position].set(metrics[key]) for key in history}

        shapes = jax.eval_shape(one, jnp.int32(0), state)[1]
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
