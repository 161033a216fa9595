"""The state of training: `TrainState`, changed by every step, and `LoopState`, a whole checkpoint.

A `Player` is a set of parameters with an optimiser and a loss of its own; most models have one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

PyTree = Any

DEFAULT_PLAYER = "model"
"""Name of the only player where there is one."""


@flax.struct.dataclass
class Player:
    """Parameters with an optimiser of their own.

    Attributes:
      parameters: The parameters that this player's loss is minimised over.
      optimizer_state: State of its Optax transformation.
    """

    parameters: PyTree
    optimizer_state: PyTree


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes: a pytree of arrays.

    Attributes:
      step: Number of updates made so far, an int32 scalar.
      finite: Whether every loss and gradient so far was finite, a bool scalar. Once False, further
        steps leave the state as it is: the last good one.
      players: Each `Player` by name, in the order in which they are updated.
      state: Mutable Flax collections by name, `{}` where the model has none.
      ema: Exponential moving averages of the parameters by player, `{}` where they aren't kept.
    """

    step: jax.Array
    finite: jax.Array
    players: dict[str, Player]
    state: dict[str, PyTree]
    ema: dict[str, PyTree]


@dataclasses.dataclass
class LoopState:
    """All that decides how a run goes on, and that its checkpoints hold.

    Attributes:
      train: The state after the last step.
      best: The variables of the best evaluation, those of step 0 before the first, `{}` if none
        are to be chosen.
      evaluation: Metrics of the best evaluation, or of the last if none are to be chosen; None for
        what isn't finite.
      evaluated_step: The step of that evaluation, 0 before the first.
    """

    train: TrainState
    best: dict[str, PyTree]
    evaluation: dict[str, float | None] = dataclasses.field(default_factory=dict)
    evaluated_step: int = 0

    def tree(self) -> dict[str, PyTree]:
        """The arrays of a checkpoint; its keys are part of the file format."""
        return {"state": self.train, "best": self.best}

    def to_json(self) -> dict[str, Any]:
        """The JSON values of a checkpoint; the keys are part of the file format."""
        return {"evaluation": self.evaluation, "evaluated_step": self.evaluated_step}

    @classmethod
    def from_json(cls, tree: Mapping[str, PyTree], values: Mapping[str, Any]) -> LoopState:
        """The state of which a checkpoint has the arrays `tree` and the JSON values `values`."""
        return cls(
            train=tree["state"],
            best=tree["best"],
            evaluation=values["evaluation"],
            evaluated_step=values["evaluated_step"],
        )


def by_player(value: Any) -> dict[str, Any]:
    """Names a single loss or optimiser after the only player; leaves a mapping by name as it is."""
    return dict(value) if isinstance(value, Mapping) else {DEFAULT_PLAYER: value}


def create_train_state(
    variables: Mapping[str, PyTree],
    optimizers: optax.GradientTransformation | Mapping[str, optax.GradientTransformation],
    *,
    ema: bool = True,
) -> TrainState:
    """Returns the state before the first step.

    Pure: it can be jitted. The state shares no buffer with `variables`.

    Args:
      variables: Flax variables, `{"params": ..., **mutable collections}`. With several players,
        `variables["params"]` holds the parameters of each under its name.
      optimizers: One Optax transformation, or one for each player by name, in the order of update.
      ema: Whether to keep moving averages of the parameters.

    Returns:
      The state at step 0, its averages equal to the parameters.

    Raises:
      ValueError: If `variables` has no "params", or its names aren't those of `optimizers`.
    """
    if "params" not in variables:
        raise ValueError(f'variables must hold "params", got {sorted(variables)}')
    optimizers = by_player(optimizers)
    if len(optimizers) == 1:
        parameters = dict.fromkeys(optimizers, variables["params"])
    elif set(optimizers) == set(variables["params"]):
        parameters = variables["params"]
    else:
        raise ValueError(
            f'variables["params"] must hold one entry a player, {sorted(optimizers)}, '
            f"got {sorted(variables['params'])}"
        )

    def copy(tree: PyTree) -> PyTree:  # steps donate the state: no two leaves may share a buffer
        return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), tree)

    return TrainState(
        step=jnp.zeros((), jnp.int32),
        finite=jnp.ones((), bool),
        players={
            name: Player(copy(parameters[name]), copy(optimizer.init(parameters[name])))
            for name, optimizer in optimizers.items()
        },
        state={name: copy(tree) for name, tree in variables.items() if name != "params"},
        ema={name: copy(parameters[name]) for name in optimizers} if ema else {},
    )


def merge(parameters: Mapping[str, PyTree], state: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Flax variables from the parameters of each player and the mutable collections."""
    if len(parameters) == 1:
        (params,) = parameters.values()
    else:
        params = dict(parameters)
    return {"params": params, **state}


def variables_of(state: TrainState, ema: bool = False) -> dict[str, PyTree]:
    """The Flax variables that a model is applied with.

    Args:
      state: A train state.
      ema: Whether to take the moving averages in place of the parameters.

    Returns:
      `{"params": ..., **mutable collections}`; with several players, "params" holds the parameters
      of each under its name.

    Raises:
      ValueError: If `ema` is asked of a state that keeps none.
    """
    if ema and not state.ema:
        raise ValueError("ema must be False: this state keeps no moving averages")
    if ema:
        return merge(state.ema, state.state)
    return merge({name: player.parameters for name, player in state.players.items()}, state.state)
