"""vaeflow's side of the comparison of flows of vectors."""

from __future__ import annotations

import time
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import vaeflow as vf
from benchmarks.flow_size import BOUND, LEARNING_RATE, FlowSize, Rows
from vaeflow import training
from vaeflow.training.parallel import compiler_options


def make(**size: Any) -> Ours:
    """Makes the side; nothing is computed yet but that JAX finds its device."""
    jax.devices()
    return Ours(FlowSize(**size))


def build(size: FlowSize) -> nn.Module:
    """Builds the flow."""
    shared = {
        "event_shape": (size.entries,),
        "num_steps": size.steps,
        "hidden_sizes": (size.width,) * 2,
    }
    if size.kind == "affine-autoregressive":
        return vf.flows.MaskedAutoregressiveFlow(**shared)
    return vf.flows.NeuralSplineFlow(
        **shared,
        num_bins=size.bins,
        bound=BOUND,
        autoregressive=size.kind == "spline-autoregressive",
    )


class Ours:
    """A flow, its training state and its compiled functions."""

    def __init__(self, size: FlowSize):
        self.size = size
        self.rows = Rows(size)
        self.model = vf.models.FlowModel(build(size))
        self.optimizer = optax.adam(LEARNING_RATE)
        update = training.make_update(self.model, vf.losses.negative_log_likelihood, self.optimizer)
        key = jax.random.key(0)[None]

        def step(state: training.TrainState, rows: jax.Array) -> Any:
            return update(state, {"image": rows}, key)

        self.compiled = {
            # As `training.Jit` compiles it.
            "step": jax.jit(step, donate_argnums=0, compiler_options=compiler_options("cpu")),
            "log_prob": jax.jit(self._log_prob),
            "sample": jax.jit(self._sample),
        }

    def initialize(self) -> dict[str, Any]:
        """Initialises; returns the number of parameters and their types."""

        @jax.jit
        def create(key: jax.Array, rows: jax.Array) -> training.TrainState:
            variables = self.model.init(key, rows)
            return training.create_train_state(variables, self.optimizer, ema=False)

        self.batch = jnp.asarray(self.rows.first())
        self.state = create(jax.random.key(self.size.seed), self.batch)
        leaves = jax.tree.leaves(self._variables()["params"])
        dtypes = {str(leaf.dtype) for leaf in leaves}
        return {"parameters": sum(leaf.size for leaf in leaves), "dtypes": sorted(dtypes)}

    def run(self, work: str, calls: int = 1) -> float:
        """Runs some calls, compiling at the first; returns the seconds that each took."""
        start = time.perf_counter()
        for _ in range(calls):
            if work == "step":
                result = self.state, _ = self.compiled[work](self.state, self.batch)
            else:
                result = self.compiled[work](self._variables(), self.batch)
        jax.block_until_ready(result)
        return (time.perf_counter() - start) / calls

    def train(self, steps: int) -> float:
        """Trains from the start; returns the mean log-likelihood of the test rows, in nats."""
        self.initialize()
        for rows in self.rows.batches(steps):
            self.state, _ = self.compiled["step"](self.state, rows)
        return float(jnp.mean(self._log_prob(self._variables(), self.rows.test)))

    def _log_prob(self, variables: Any, rows: jax.Array) -> jax.Array:
        return self.model.apply(variables, rows, method="log_prob")

    def _sample(self, variables: Any, rows: jax.Array) -> jax.Array:
        return self.model.apply(variables, jax.random.key(1), len(rows), method="sample")

    def _variables(self) -> dict[str, Any]:
        return training.variables_of(self.state)
