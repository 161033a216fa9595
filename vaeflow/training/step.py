"""Compiled training steps: an update and a strategy, for one batch or for several in one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from vaeflow.training.state import TrainState
from vaeflow.training.strategy import Strategy, make_strategy
from vaeflow.training.update import Batch, Loss, Metrics, Optimizers, Step, Weights, make_update


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
