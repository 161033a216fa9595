"""Players are taken out of a model of several, as they would be by themselves."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import linear_gaussian as exact
from vaeflow import encoders, losses, models, sharing
from vaeflow.nn import LatentDiscriminator

KEY = jax.random.key(0)
VAE = exact.model(encoders.DiagonalGaussianPosterior(exact.LATENTS))
MODEL = models.FactorVAE(VAE, LatentDiscriminator((8,)))


class Counting(nn.Module):
    """Has a mutable collection."""

    @nn.compact
    def __call__(self, x):
        count = self.variable("statistics", "count", lambda: jnp.int32(0))
        return nn.Dense(1)(x) + count.value


class Pair(nn.Module):
    """Two players of other names, one with a collection."""

    generator: nn.Module
    critic: nn.Module

    def __call__(self, x):
        return self.critic(self.generator(x))


def test_the_model_of_a_factor_vae_is_any_vae(tmp_path):
    variables = jax.jit(MODEL.init)(KEY, exact.DATA)
    module, own = models.submodel(MODEL, variables, "model")
    assert module is VAE
    alone = jax.eval_shape(VAE.init, KEY, exact.DATA)
    assert jax.tree.structure(own) == jax.tree.structure(alone)
    sharing.save(str(tmp_path / "vae.safetensors"), {}, own)
    loaded = sharing.load(str(tmp_path / "vae.safetensors"))[1]
    value, _ = jax.jit(functools.partial(losses.elbo, VAE))(loaded, exact.BATCH, KEY)
    assert np.isfinite(value)
    with pytest.raises(ValueError, match=r"among \['discriminator', 'model'\], got 'critic'"):
        models.submodel(MODEL, variables, "critic")


def test_collections_go_with_their_player():
    pair, inputs = Pair(nn.Dense(3), Counting()), np.ones((2, 4), np.float32)

    @jax.jit
    def run():
        variables = pair.init(KEY, inputs)
        (generator, first), (critic, second) = (
            models.submodel(pair, variables, name) for name in ("generator", "critic")
        )
        assert (set(first), set(second)) == ({"params"}, {"params", "statistics"})
        by_parts = critic.apply(second, generator.apply(first, inputs))
        return by_parts, pair.apply(variables, inputs)

    np.testing.assert_array_equal(*run())


def test_a_discriminator_starts_undecided_and_reads_every_latent():
    network = LatentDiscriminator((8, 8))
    z = np.random.RandomState(0).normal(size=(5, 3)).astype(np.float32)

    @jax.jit
    def run():
        initial = network.init(KEY, z)
        variables = jax.tree.map(lambda leaf: leaf + 0.3, initial)
        slope = jax.grad(lambda z: network.apply(variables, z).sum())(z)
        half = LatentDiscriminator((8, 8), jnp.bfloat16).apply(variables, z)
        return network.apply(initial, z), network.apply(variables, z), slope, half

    first, full, slope, half = jax.device_get(run())
    np.testing.assert_array_equal(first, np.zeros(5))
    assert np.all(slope != 0)
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, full, rtol=0.05, atol=0.05)
