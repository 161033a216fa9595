"""vaeflow's side of the comparisons."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import vaeflow as vf
from benchmarks.size import LEARNING_RATE, Size, dequantized_images
from vaeflow import training

MODES = {
    "scan": {},
    "remat": {"backward": "remat"},
    "reversible": {"backward": "reversible"},
    "unrolled": {"scan": False},
}
"""Options of `vaeflow.flows.Glow` by the name of the way to backpropagate."""


def make(mode: str, plu: bool = True, **size: int) -> Ours:
    """Makes the side; nothing is computed yet but that JAX finds its device."""
    jax.devices()
    return Ours(Size(**size), mode, plu)


class Ours:
    """A Glow, its training state and its compiled functions."""

    def __init__(self, size: Size, mode: str, plu: bool):
        self.size = size
        flow = vf.flows.Glow(
            size.shape,
            num_levels=size.levels,
            num_steps=size.steps,
            hidden_features=size.width,
            plu=plu,
            **MODES[mode],
        )
        self.model = vf.models.FlowModel(flow)
        self.optimizer = training.make_optimizer(
            training.TrainConfig(learning_rate=LEARNING_RATE, batch_size=size.batch_size)
        )
        self.compiled: dict[str, Any] = {}

    def initialize(self) -> dict[str, Any]:
        """Initialises from the images; returns the number of parameters and their types."""
        self.images = jnp.asarray(dequantized_images(self.size))

        @jax.jit  # all in one, as training does: many small programs take more memory
        def create(images: jax.Array) -> training.TrainState:
            variables = self.model.init(jax.random.key(0), images)
            return training.create_train_state(variables, self.optimizer, ema=False)

        self.state = create(self.images)
        leaves = jax.tree.leaves(self._variables()["params"])
        dtypes = {str(leaf.dtype) for leaf in leaves}
        return {"parameters": sum(leaf.size for leaf in leaves), "dtypes": sorted(dtypes)}

    def loss(self) -> float:
        """Mean nats per dimension of the images."""
        return float(jax.jit(self._loss)(self._variables(), self.images))

    def compile(self, work: str) -> dict[str, float]:
        """Compiles what `run` runs; returns the seconds and the bytes of temporaries."""
        lowered = jax.jit(self._function(work), donate_argnums=self._donated(work)).lower(
            *self._arguments(work)
        )
        start = time.perf_counter()
        self.compiled[work] = lowered.compile()
        seconds = time.perf_counter() - start
        analysis = self.compiled[work].memory_analysis()
        return {"seconds": seconds, "temporaries": analysis.temp_size_in_bytes}

    def run(self, work: str) -> float:
        """Runs once; returns the seconds."""
        if work not in self.compiled:
            self.compile(work)
        start = time.perf_counter()
        result = jax.block_until_ready(self.compiled[work](*self._arguments(work)))
        seconds = time.perf_counter() - start
        if work == "step":
            self.state = result[0]
        return seconds

    def matmul(self, rows: int) -> float:
        """Multiplies two square matrices once; returns the operations per second."""
        if "matmul" not in self.compiled:
            self.matrix = jax.random.normal(jax.random.key(0), (rows, rows))
            self.compiled["matmul"] = jax.jit(jnp.matmul)
        start = time.perf_counter()
        jax.block_until_ready(self.compiled["matmul"](self.matrix, self.matrix))
        return 2 * rows**3 / (time.perf_counter() - start)

    def _function(self, work: str) -> Callable:
        if work == "step":
            loss = vf.losses.negative_log_likelihood
            update = training.make_update(self.model, loss, self.optimizer)
            return lambda state, images: update(state, {"image": images}, jax.random.key(0)[None])
        return {
            # Permutations and signs are integers, which have no gradient.
            "gradient": lambda variables, images: jax.grad(
                lambda params: self._loss({**variables, "params": params}, images)
            )(variables["params"]),
            "log_prob": lambda variables, images: self.model.apply(
                variables, images, method="log_prob"
            ),
            # With their densities, as the peer returns both.
            "sample": lambda variables, images: self.model.apply(variables).sample_and_log_prob(
                seed=jax.random.key(1), sample_shape=len(images)
            ),
        }[work]

    def _arguments(self, work: str) -> tuple[Any, ...]:
        return (self.state if work == "step" else self._variables()), self.images

    def _donated(self, work: str) -> tuple[int, ...]:
        return (0,) if work == "step" else ()

    def _variables(self) -> dict[str, Any]:
        return training.variables_of(self.state)

    def _loss(self, variables: dict[str, Any], images: jax.Array) -> jax.Array:
        loss = vf.losses.negative_log_likelihood
        return loss(self.model, variables, {"image": images}, jax.random.key(0))[0]
