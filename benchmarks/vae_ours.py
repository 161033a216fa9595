"""vaeflow's side of the comparison of variational auto-encoders."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import vaeflow as vf
from benchmarks.vae_size import LEARNING_RATE, SHAPE, VaeSize, training_images
from benchmarks.vq_size import VqStepSize
from vaeflow import data, training
from vaeflow.training.batches import groups, prefetch
from vaeflow.training.parallel import compiler_options


def make(**size: Any) -> Ours:
    """Makes the side; nothing is computed yet but that JAX finds its device."""
    jax.devices()
    given = VaeSize(**size)
    loss = vf.losses.elbo
    if given.samples > 1:
        loss = functools.partial(vf.losses.importance_weighted, num_samples=given.samples)
    return Ours(given, build(given), loss)


def build(size: VaeSize) -> vf.models.VAE:
    """Builds the model, which samples binary images again at each step."""
    return vf.models.VAE(
        vf.encoders.Encoder(
            vf.encoders.DenseEncoder((size.hidden,), activation=vf.nn.relu),
            vf.encoders.DiagonalGaussianPosterior(size.latents),
        ),
        vf.decoders.Decoder(
            vf.decoders.DenseDecoder((size.hidden,), activation=vf.nn.relu),
            vf.decoders.BernoulliLikelihood(),
            SHAPE,
        ),
        vf.models.Binarizer(),
    )


class Ours:
    """A model, its training state and its compiled steps."""

    def __init__(self, size: VaeSize | VqStepSize, model: nn.Module, loss: Callable):
        self.size = size
        self.model = model
        self.optimizer = training.make_optimizer(
            training.TrainConfig(learning_rate=LEARNING_RATE, batch_size=size.batch_size)
        )
        self.make_step = functools.partial(
            training.make_train_step, self.model, loss, self.optimizer, seed=size.seed
        )
        self.step = self.make_step()
        self.drawn: dict[str, Iterator[Any]] = {}
        self.matrix: jax.Array | None = None

    def initialize(self) -> dict[str, Any]:
        """Initialises; returns the number of parameters and their types."""
        images = training_images(self.size)
        rows = np.arange(len(images))
        source = data.Source(lambda chosen: {"image": images[chosen]}, rows)
        self.batches = training.Batches(source, self.size.batch_size, self.size.seed)
        self.epoch_steps = len(images) // self.size.batch_size
        self.scanned = self.make_step(scan_steps=self.epoch_steps)
        first = {"image": images, "index": rows.astype(np.int32)}
        self.batch = {
            name: jnp.asarray(value[: self.size.batch_size]) for name, value in first.items()
        }

        @jax.jit
        def create(key: jax.Array, images: jax.Array) -> training.TrainState:
            variables = self.model.init(key, images)
            return training.create_train_state(variables, self.optimizer, ema=False)

        self.state = create(jax.random.key(self.size.seed), self.batch["image"])
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
        """The loss of the last step, in nats."""
        return float(self.metrics["loss"])

    def epoch(self, way: str) -> float:
        """Goes through all images once; returns the seconds.

        Args:
          way: "scanned", in one call over images that stay on the device, or "streamed", in a call
            for each batch. What is drawn on the host is drawn ahead, as training does.
        """
        if way not in self.drawn:
            self.drawn[way] = self._plans() if way == "scanned" else self._streamed()
            if way == "scanned":
                self.examples = jax.device_put(self.batches.examples())
        start = time.perf_counter()
        if way == "scanned":
            count, plan = next(self.drawn[way])
            self.state, _ = self.scanned(self.state, self.examples, plan, np.int32(count))
        else:
            for _ in range(self.epoch_steps):
                self.state, self.metrics = self.step(self.state, next(self.drawn[way]))
        jax.block_until_ready(self.state)
        return time.perf_counter() - start

    def matmul(self, rows: int) -> float:
        """Multiplies two square matrices once; returns the operations per second."""
        if self.matrix is None:
            self.matrix = jax.random.normal(jax.random.key(0), (rows, rows))
            self.product = jax.jit(
                jnp.matmul, compiler_options=compiler_options(jax.default_backend())
            )
        start = time.perf_counter()
        jax.block_until_ready(self.product(self.matrix, self.matrix))
        return 2 * rows**3 / (time.perf_counter() - start)

    def _plans(self) -> Iterator[Any]:
        sizes = iter(lambda: self.epoch_steps, 0)
        return prefetch(groups(self.batches.plan(0), sizes, self.epoch_steps))

    def _streamed(self) -> Iterator[Any]:
        return prefetch(self.batches.stream(0))
