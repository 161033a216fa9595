"""A model, a loss and a source small enough to train in every test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vaeflow import data, training
from vaeflow._util.arrays import row_keys
from vaeflow.data.dataset import array_part
from vaeflow.losses import Aux

COUNT = 30


class Model(nn.Module):
    """Reconstructs an image through a few features; counts its calls in a mutable collection."""

    @nn.compact
    def __call__(self, images, noise):
        count = self.variable("statistics", "count", lambda: jnp.zeros((), jnp.int32))
        if self.is_mutable_collection("statistics") and not self.is_initializing():
            count.value = count.value + 1
        flat = images.reshape(images.shape[0], -1)
        features = nn.tanh(nn.Dense(8)(flat + 0.1 * noise.reshape(flat.shape)))
        return nn.Dense(flat.shape[-1])(features).reshape(images.shape)


def loss(model, variables, batch, rng, *, axis, train, weight=1.0):
    """Squared error of the reconstruction of noisy images; the noise is drawn row by row."""
    images = batch["image"] / 255.0
    keys = row_keys(rng, len(images))
    noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)
    output, state = model.apply(variables, images, noise, mutable=["statistics"])
    error = jnp.mean(jnp.square(output - images))
    return weight * error, Aux({"error": error, "weight": jnp.asarray(weight)}, state)


def source() -> data.Source:
    """Labelled images, none equal to its mirror image, whose index isn't their row."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (COUNT + 10, 4, 6, 1), dtype=np.uint8)
    part = array_part(images, np.arange(COUNT + 10) % 3)
    return data.Source(part.read, np.arange(10, COUNT + 10), 5)


def batches(config: training.TrainConfig) -> training.Batches:
    """Flipped batches of `source`."""
    return training.Batches(source(), config.batch_size, config.seed, flip=True)


@jax.jit
def initialize() -> dict:
    """Variables of the model at step 0."""
    images = jnp.zeros((1, 4, 6, 1))
    return Model().init(jax.random.key(0), images, images)


@contextlib.contextmanager
def compilations() -> Iterator[list[float]]:
    """Collects the seconds of each compilation while it lasts, those from the cache included."""
    seconds: list[float] = []

    def listen(event: str, duration: float, **details) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seconds
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def equal(first, second) -> None:
    """Asserts that two pytrees are the same bit for bit."""
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def same(first, second) -> bool:
    """Whether two pytrees are the same bit for bit."""
    return all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    )
