"""vaeflow's side of the comparison of planar flows."""

from __future__ import annotations

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vaeflow as vf
from benchmarks.plane_size import SAMPLES, PlaneSize
from vaeflow import training


def make(**size: Any) -> Ours:
    """Makes the side; nothing is computed yet but that JAX finds its device."""
    jax.devices()
    return Ours(PlaneSize(**size))


class Ours:
    """A planar flow, its training state and its compiled step."""

    def __init__(self, size: PlaneSize):
        self.size = size
        self.energy = getattr(vf.distributions.toy, f"{size.energy}_energy")
        self.model = vf.models.FlowModel(vf.flows.PlanarFlow((2,), num_steps=size.steps))
        schedule = optax.cosine_decay_schedule(size.learning_rate, size.updates)
        self.optimizer = optax.adam(schedule)
        self.loss = functools.partial(vf.losses.reverse_kl, energy=self.energy)
        self.batch = {"index": jnp.arange(size.batch_size)}

        @functools.partial(jax.jit, donate_argnums=0)
        def step(state: training.TrainState, beta: jax.Array) -> Any:
            loss = functools.partial(self.loss, beta=beta)
            update = training.make_update(self.model, loss, self.optimizer)
            keys = vf.row_keys(
                jax.random.fold_in(jax.random.key(size.seed), state.step), size.batch_size
            )
            return update(state, self.batch, keys)[0]

        self.step = step

    def initialize(self) -> None:
        """Initialises."""
        variables = jax.jit(self.model.init)(jax.random.key(self.size.seed))
        self.state = training.create_train_state(variables, self.optimizer, ema=False)

    def run(self, work: str) -> float:
        """Runs one training step; returns the seconds."""
        del work
        start = time.perf_counter()
        self.state = jax.block_until_ready(self.step(self.state, np.float32(1.0)))
        return time.perf_counter() - start

    def train(self) -> float:
        """Trains from the start; returns KL(q || p), with the integral of p by quadrature."""
        self.initialize()
        for step in range(self.size.updates):
            self.state = self.step(self.state, np.float32(self.size.beta_at(step)))
        batch = {"index": jnp.arange(SAMPLES)}
        variables = training.variables_of(self.state)
        loss = self.loss(self.model, variables, batch, jax.random.key(1))[0]
        return float(loss) + self.log_normalizer()

    def log_normalizer(self) -> float:
        """log Z of the energy, by quadrature."""
        return vf.metrics.log_integral(lambda z: -self.energy(z), [-10] * 2, [10] * 2)
