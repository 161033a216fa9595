"""vaeflow's side of the comparison of MUNITs."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.munit_size import LEARNING_RATE, SHAPES, WEIGHTS, MunitSize
from experiments import munit_folders
from vaeflow import training


def make(**size: Any) -> Ours:
    """Makes the side; nothing is computed yet but that JAX finds its device."""
    jax.devices()
    return Ours(MunitSize(**size))


def model_config(size: MunitSize) -> munit_folders.ModelConfig:
    """These sizes by the names of the experiments."""
    return munit_folders.ModelConfig(
        content_channels=tuple(size.content_channels),
        blocks=size.blocks,
        style_channels=tuple(size.style_channels),
        style_size=size.style_size,
        hidden=size.hidden,
        discriminator_channels=tuple(size.discriminator_channels),
        scales=size.scales,
    )


class Ours:
    """Both players, their training state and the compiled step."""

    def __init__(self, size: MunitSize):
        self.size = size
        self.game = munit_folders.build_game(model_config(size), SHAPES)
        self.losses = munit_folders.make_losses(munit_folders.LossConfig(**WEIGHTS))
        self.optimizers = munit_folders.make_optimizers(
            training.TrainConfig(learning_rate=LEARNING_RATE, batch_size=size.batch_size)
        )
        self.step = training.make_train_step(
            self.game, self.losses, self.optimizers, seed=size.seed
        )

    def initialize(self) -> dict[str, Any]:
        """Initialises; returns the number of parameters and their types."""
        images = self.size.images()
        self.batch = {domain: {"image": jnp.asarray(own)} for domain, own in images.items()}

        @jax.jit
        def create(key: jax.Array, batch: dict[str, Any]) -> training.TrainState:
            variables = self.game.init(key, *(own["image"] for own in batch.values()))
            return training.create_train_state(variables, self.optimizers, ema=False)

        self.state = create(jax.random.key(self.size.seed), self.batch)
        leaves = jax.tree.leaves(training.variables_of(self.state)["params"])
        dtypes = {str(leaf.dtype) for leaf in leaves}
        return {"parameters": sum(leaf.size for leaf in leaves), "dtypes": sorted(dtypes)}

    def run(self, calls: int = 1) -> float:
        """Makes some steps, compiling at the first; returns the seconds that each took."""
        start = time.perf_counter()
        for _ in range(calls):
            self.state, self.metrics = self.step(self.state, self.batch)
        jax.block_until_ready(self.state)
        return (time.perf_counter() - start) / calls

    def loss(self) -> float:
        """The loss of the auto-encoders at the last step."""
        return float(self.metrics["generator/loss"])
