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
    def step(variables, key):
        loss, gradient = jax.value_and_grad(
            lambda variables: losses.elbo(MODEL, variables, batch, key)[0]
        )(variables)
        return jax.tree.map(lambda leaf, move: leaf - 0.01 * move, variables, gradient), loss

    moved, values = variables, []
    for key in jax.random.split(KEY, 30):
        moved, loss = step(moved, key)
        values.append(float(loss))
    assert np.mean(values[-5:]) < np.mean(values[:5])
    before, after = (tree["params"]["prior_model"] for tree in (variables, moved))
    for (path, old), new in zip(
        jax.tree.leaves_with_path(before), jax.tree.leaves(after), strict=True
    ):
        assert np.abs(new - old).max() > 1e-6, path
    drawn = MODEL.apply(moved, KEY, 4, method="sample")
    assert drawn.shape == (4, *SHAPE)


def test_each_latent_is_a_gaussian_given_those_before_it(variables):
    moved = jax.tree.map(
        lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape),
        variables,
    )
    prior = MODEL.apply(moved, method="prior")
    noise_of = prior.bijector.inverse
    z = jax.random.normal(KEY, (5, 3))
    jacobian = jax.jit(jax.vmap(jax.jacobian(noise_of)))
    found = np.asarray(jacobian(z))
    depends = (found != 0).all(axis=0)
    # The flow may put noise and latents in other orders.
    rows, order = np.argsort(depends.sum(axis=1)), np.argsort(-depends.sum(axis=0))
    ordered = found[:, rows][:, :, order]
    np.testing.assert_array_equal(np.triu(ordered, 1), 0)
    np.testing.assert_array_equal(np.tril(np.ones((3, 3))), np.tril(ordered != 0).all(axis=0))
    # Affine in the latent itself: its own value changes no slope, and that is the whole density.
    diagonal = np.diagonal(ordered, axis1=1, axis2=2)
    again = np.asarray(jacobian(z.at[:, order[-1]].add(3.0)))[:, rows[-1], order[-1]]
    np.testing.assert_allclose(again, diagonal[:, -1], rtol=1e-5)
    noise = np.asarray(jax.vmap(noise_of)(z), np.float64)
    expected = -0.5 * noise**2 - 0.5 * np.log(2 * np.pi) + np.log(np.abs(diagonal))
    np.testing.assert_allclose(prior.log_prob(z), expected.sum(axis=1), rtol=1e-5)
