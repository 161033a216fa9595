"""A prior in which each latent is a Gaussian given those before it."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from experiments import latent_models
from vaeflow import losses

KEY = jax.random.key(0)
SHAPE = (4, 4, 1)
IMAGES = np.random.RandomState(0).choice([0, 255], (16, *SHAPE), p=[0.7, 0.3]).astype(np.uint8)
MODEL = latent_models.build(latent_models.ModelConfig(latents=3, prior="autoregressive"), SHAPE)


@pytest.fixture(scope="module")
def variables():
    return jax.jit(MODEL.init)(KEY, IMAGES)


def test_joint_training_moves_it(variables):
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
