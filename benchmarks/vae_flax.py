"""A variational auto-encoder as one writes it in Flax by itself: one jitted step on a train state.

Flax's documentation has its example so: a network with logits, one sample, a jitted function that
takes the train state, a batch and a key. Keys are split on the host.
"""

from __future__ import annotations

import math
import time
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training import train_state

from benchmarks.vae_size import LEARNING_RATE, SHAPE, VaeSize, training_images


def make(**size: Any) -> FlaxSide:
    """Makes the side; nothing is computed yet but that JAX finds its device."""
    jax.devices()
    return FlaxSide(VaeSize(**size))


class Network(nn.Module):
    """Encoder and decoder of one hidden layer each."""

    hidden: int
    latents: int

    @nn.compact
    def __call__(self, images: jax.Array, key: jax.Array) -> tuple[jax.Array, ...]:
        features = nn.relu(nn.Dense(self.hidden)(images))
        mean, log_variance = (
            nn.Dense(self.latents)(features),
            nn.Dense(self.latents)(features),
        )
        z = mean + jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape)
        logits = nn.Dense(math.prod(SHAPE))(nn.relu(nn.Dense(self.hidden)(z)))
        return logits, mean, log_variance


@jax.jit
def train_step(
    state: train_state.TrainState, images: jax.Array, key: jax.Array
) -> tuple[train_state.TrainState, jax.Array]:
    """Makes one update; returns the loss in nats too."""

    def negative_elbo(parameters: Any) -> jax.Array:
        logits, mean, log_variance = state.apply_fn({"params": parameters}, images, key)
        entropy = optax.sigmoid_binary_cross_entropy(logits, images).sum(-1)
        kl = 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance).sum(-1)
        return jnp.mean(entropy + kl)

    loss, gradient = jax.value_and_grad(negative_elbo)(state.params)
    return state.apply_gradients(grads=gradient), loss


class FlaxSide:
    """A network and its train state."""

    def __init__(self, size: VaeSize):
        if size.samples != 1:
            raise ValueError(f"this side takes one sample, got {size.samples}")
        self.size = size

    def initialize(self) -> dict[str, Any]:
        """Initialises; returns the number of parameters and their types."""
        images = training_images(self.size)[: self.size.batch_size]
        self.batch = jnp.asarray(images.reshape(-1, math.prod(SHAPE))) / 255
        self.key, key = jax.random.split(jax.random.key(self.size.seed))
        network = Network(self.size.hidden, self.size.latents)
        parameters = jax.jit(network.init)(key, self.batch, key)["params"]
        self.state = train_state.TrainState.create(
            apply_fn=network.apply, params=parameters, tx=optax.adam(LEARNING_RATE)
        )
        leaves = jax.tree.leaves(parameters)
        dtypes = {str(leaf.dtype) for leaf in leaves}
        return {"parameters": sum(leaf.size for leaf in leaves), "dtypes": sorted(dtypes)}

    def run(self, calls: int = 1) -> float:
        """Makes some steps, compiling at the first; returns the seconds that each took."""
        start = time.perf_counter()
        for _ in range(calls):
            self.key, key = jax.random.split(self.key)
            self.state, self.last = train_step(self.state, self.batch, key)
        jax.block_until_ready(self.state)
        return (time.perf_counter() - start) / calls

    def loss(self) -> float:
        """The loss of the last step, in nats."""
        return float(self.last)
