"""A prior in which each latent is a Gaussian given those before it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
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


def noisy(variables):
    return jax.tree.map(
        lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape),
        variables,
    )


def test_the_density_factorises_in_the_order_of_the_latents(variables):
    prior = MODEL.apply(noisy(variables), method="prior")
    log_prob = jax.jit(lambda z: prior.log_prob(z))
    grid = jnp.linspace(-12, 12, 801)
    given = jnp.array([[0.3, -1.2], [0.3, 0.9], [-1.5, 0.9]])
    points = jnp.concatenate(
        [jnp.repeat(given[:, None], 801, axis=1), jnp.tile(grid[:, None], (3, 1, 1))], axis=-1
    )
    found = np.asarray(log_prob(points), np.float64)
    # Given those before it the last is Gaussian: a parabola of the logarithm, and each another one.
    middle = np.abs(np.asarray(grid)) < 3
    curves = [np.polyfit(np.asarray(grid)[middle], row[middle], 2) for row in found]
    for row, curve in zip(found, curves, strict=True):
        np.testing.assert_allclose(np.polyval(curve, grid[middle]), row[middle], atol=1e-3)
    assert abs(curves[0][1] - curves[1][1]) > 1e-2
    # What is left when it is integrated out is a joint density in which, again, the second is
    # Gaussian given the first; the first alone is one whatever comes after.
    plane = jnp.linspace(-6, 6, 121)
    z = jnp.stack(jnp.meshgrid(plane, plane, plane, indexing="ij"), axis=-1)
    density = np.exp(np.asarray(log_prob(z), np.float64))
    step = float(plane[1] - plane[0])
    second = density.sum(axis=2) * step
    first = second.sum(axis=1) * step
    assert first.sum() * step == pytest.approx(1, abs=1e-3)
    inner = np.abs(np.asarray(plane)) < 2
    for curve in (np.log(first), *np.log(second / first[:, None])[inner]):
        fit = np.polyfit(np.asarray(plane)[inner], curve[inner], 2)
        np.testing.assert_allclose(np.polyval(fit, plane[inner]), curve[inner], atol=2e-2)


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
