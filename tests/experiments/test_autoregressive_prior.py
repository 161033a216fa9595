"""A prior in which each latent is a Gaussian given those before it."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from experiments import vae_mnist
from vaeflow import losses

KEY = jax.random.key(0)
SHAPE = (4, 4, 1)
IMAGES = np.random.RandomState(0).choice([0, 255], (16, *SHAPE), p=[0.7, 0.3]).astype(np.uint8)
CONFIG = dataclasses.replace(
    vae_mnist.PRESETS["vae"].config,
    model=vae_mnist.ModelConfig(latents=3, prior="autoregressive"),
)
MODEL = vae_mnist.build(CONFIG, SHAPE)


@pytest.fixture(scope="module")
def variables():
    return jax.jit(MODEL.init)(KEY, IMAGES)


def test_joint_training_changes_its_parameters(variables):
    batch = {"image": IMAGES}

    @jax.jit
    def step(variables, number):
        key = jax.random.fold_in(KEY, number)
        loss, gradient = jax.value_and_grad(
            lambda variables: losses.elbo(MODEL, variables, batch, key)[0]
        )(variables)
        return jax.tree.map(lambda leaf, move: leaf - 0.01 * move, variables, gradient), loss

    moved, values = variables, []
    for number in range(30):
        moved, loss = step(moved, number)
        values.append(float(loss))
    assert np.mean(values[-5:]) < np.mean(values[:5])
    before, after = (jax.device_get(tree["params"]["prior_model"]) for tree in (variables, moved))
    for (path, old), new in zip(
        jax.tree.leaves_with_path(before), jax.tree.leaves(after), strict=True
    ):
        assert np.abs(new - old).max() > 1e-6, path
    drawn = jax.eval_shape(lambda own: MODEL.apply(own, KEY, 4, method="sample"), moved)
    assert drawn.shape == (4, *SHAPE)


def test_each_latent_is_a_gaussian_given_those_before_it(variables):
    random = np.random.default_rng(0)

    def normal(*shape):
        return random.normal(size=shape).astype(np.float32)

    moved = jax.tree.map(lambda leaf: np.asarray(leaf) + 0.1 * normal(*leaf.shape), variables)
    z = normal(5, 3)

    @jax.jit
    def prior_of(variables, z):
        prior = MODEL.apply(variables, method="prior")
        noise_of = prior.bijector.inverse
        return jax.vmap(jax.jacobian(noise_of))(z), jax.vmap(noise_of)(z), prior.log_prob(z)

    found, noise, log_probs = jax.device_get(prior_of(moved, z))
    depends = (found != 0).all(axis=0)
    # The flow may put noise and latents in other orders.
    rows, order = np.argsort(depends.sum(axis=1)), np.argsort(-depends.sum(axis=0))
    ordered = found[:, rows][:, :, order]
    np.testing.assert_array_equal(np.triu(ordered, 1), 0)
    np.testing.assert_array_equal(np.tril(np.ones((3, 3))), np.tril(ordered != 0).all(axis=0))
    # Affine in the latent itself: its own value changes no slope, and that is the whole density.
    diagonal = np.diagonal(ordered, axis1=1, axis2=2)
    further = z.copy()
    further[:, order[-1]] += 3.0
    again = np.asarray(prior_of(moved, further)[0])[:, rows[-1], order[-1]]
    np.testing.assert_allclose(again, diagonal[:, -1], rtol=1e-5)
    noise = noise.astype(np.float64)
    expected = -0.5 * noise**2 - 0.5 * np.log(2 * np.pi) + np.log(np.abs(diagonal))
    np.testing.assert_allclose(log_probs, expected.sum(axis=1), rtol=1e-5)
