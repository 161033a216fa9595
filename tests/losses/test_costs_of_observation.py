"""The log-det of the preprocessing is part of every likelihood."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import linear_gaussian as exact
from vaeflow import encoders, losses, metrics
from vaeflow.models.preprocessing import Dequantized

KEY = jax.random.key(0)
COSTS = np.array([1.0, 2.0, 6.0], np.float32)
OBJECTIVES = {
    "elbo": losses.elbo,
    "importance_weighted": losses.importance_weighted,
    "sticking_the_landing": losses.sticking_the_landing,
    "doubly_reparameterized": losses.doubly_reparameterized,
    "hfvae": functools.partial(losses.hfvae, dataset_size=9),
    "beta_tcvae": functools.partial(losses.beta_tcvae, dataset_size=9),
    "dip_vae": losses.dip_vae,
    "info_vae": losses.info_vae,
}


class Costly(nn.Module):
    """Takes real-valued images for what they are, at a price for each row."""

    def __call__(self, images, keys):
        return Dequantized(images, -jnp.asarray(COSTS))

    def quantize(self, values):
        return values


FREE = exact.model(encoders.DiagonalGaussianPosterior(exact.LATENTS))
DEAR = FREE.clone(observation=Costly())


@pytest.fixture(scope="module")
def variables():
    return exact.diagonal_variables()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_rise_by_the_cost(name, variables):
    free, dear = (
        jax.jit(functools.partial(OBJECTIVES[name], model))(variables, exact.BATCH, KEY)
        for model in (FREE, DEAR)
    )
    np.testing.assert_allclose(dear[0] - free[0], COSTS.mean(), rtol=1e-4)
    added = dear[1].metrics["bits_per_dim"] - free[1].metrics["bits_per_dim"]
    np.testing.assert_allclose(added, COSTS.mean() / (exact.SIZE * np.log(2)), rtol=1e-4)


def test_log_likelihoods_fall_by_the_cost(variables):
    free, dear = (
        jax.jit(
            functools.partial(
                metrics.importance_weighted_log_likelihood, model, num_samples=4, chunk=2
            )
        )(variables, exact.DATA, KEY)
        for model in (FREE, DEAR)
    )
    np.testing.assert_allclose(free - dear, COSTS, rtol=1e-4)
