"""flowjax's side of the comparison of flows of vectors."""

from __future__ import annotations

import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import paramax
from flowjax import bijections, distributions, flows

from benchmarks.flow_size import BOUND, LEARNING_RATE, FlowSize, Rows


def make(**size: Any) -> Flowjax:
    """Makes the side; nothing is computed yet but that JAX finds its device."""
    jax.devices()
    return Flowjax(FlowSize(**size))


class Flowjax:
    """flowjax's ready-made flows, trained as its own loop does, and its compiled functions."""

    def __init__(self, size: FlowSize):
        self.size = size
        self.rows = Rows(size)
        self.optimizer = optax.adam(LEARNING_RATE)

        @eqx.filter_jit
        def step(parameters: Any, state: Any, static: Any, rows: jax.Array) -> tuple[Any, Any]:
            def loss(parameters: Any) -> jax.Array:
                flow = paramax.unwrap(eqx.combine(parameters, static))
                return -jnp.mean(flow.log_prob(rows))

            gradient = eqx.filter_grad(loss)(parameters)
            updates, state = self.optimizer.update(gradient, state, parameters)
            return eqx.apply_updates(parameters, updates), state

        self.step = step
        self.log_prob = eqx.filter_jit(lambda flow, rows: paramax.unwrap(flow).log_prob(rows))
        self.sample = eqx.filter_jit(
            lambda flow, rows: paramax.unwrap(flow).sample(jax.random.key(1), (len(rows),))
        )

    def initialize(self) -> dict[str, Any]:
        """Initialises; returns the number of parameters and their types."""
        flow = self._build(jax.random.key(self.size.seed))
        self.parameters, self.static = eqx.partition(
            flow,
            eqx.is_inexact_array,
            is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable),
        )
        self.state = self.optimizer.init(self.parameters)
        self.batch = jnp.asarray(self.rows.first())
        leaves = jax.tree.leaves(self.parameters)
        dtypes = {str(leaf.dtype) for leaf in leaves}
        return {"parameters": sum(leaf.size for leaf in leaves), "dtypes": sorted(dtypes)}

    def _build(self, key: jax.Array) -> Any:
        shared = {
            "base_dist": distributions.StandardNormal((self.size.entries,)),
            "flow_layers": self.size.steps,
            "nn_width": self.size.width,
            "nn_depth": 2,
        }
        if self.size.kind == "affine-autoregressive":
            return flows.masked_autoregressive_flow(key, **shared)
        spline = bijections.RationalQuadraticSpline(knots=self.size.bins, interval=BOUND)
        if self.size.kind == "spline-autoregressive":
            return flows.masked_autoregressive_flow(key, transformer=spline, **shared)
        return flows.coupling_flow(key, transformer=spline, **shared)

    def run(self, work: str, calls: int = 1) -> float:
        """Runs some calls, compiling at the first; returns the seconds that each took."""
        function = self.log_prob if work == "log_prob" else self.sample
        start = time.perf_counter()
        for _ in range(calls):
            if work == "step":
                self._step(self.batch)
                result = self.parameters
            else:
                result = function(self._flow(), self.batch)
        jax.block_until_ready(result)
        return (time.perf_counter() - start) / calls

    def train(self, steps: int) -> float:
        """Trains from the start; returns the mean log-likelihood of the test rows, in nats."""
        self.initialize()
        for rows in self.rows.batches(steps):
            self._step(jnp.asarray(rows))
        return float(jnp.mean(self.log_prob(self._flow(), jnp.asarray(self.rows.test))))

    def _step(self, rows: jax.Array) -> None:
        self.parameters, self.state = self.step(self.parameters, self.state, self.static, rows)

    def _flow(self) -> Any:
        return eqx.combine(self.parameters, self.static)
