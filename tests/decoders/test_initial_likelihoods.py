"""Likelihoods start at the first batch, dimension by dimension."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import decoders

SHAPE = (2, 3, 1)
RANDOM = np.random.RandomState(0)
DATA = (RANDOM.uniform(-0.1, 0.1, (200, *SHAPE)) + np.linspace(-0.3, 0.3, 6).reshape(SHAPE)).astype(
    np.float32
)


def test_a_gaussian_has_the_means_and_the_deviations():
    likelihood = decoders.GaussianLikelihood()
    found = likelihood.apply({}, likelihood.initial(DATA))
    np.testing.assert_allclose(found.mean(), DATA.mean(0), atol=1e-5)
    np.testing.assert_allclose(found.stddev(), DATA.std(0), rtol=1e-4)
    constant = likelihood.apply({}, likelihood.initial(0 * DATA))
    np.testing.assert_allclose(
        constant.stddev(), 2 * decoders.likelihoods.SMALLEST_SCALE, rtol=1e-3
    )


def test_a_continuous_bernoulli_has_about_the_means():
    likelihood = decoders.ContinuousBernoulliLikelihood()
    found = likelihood.apply({}, likelihood.initial(DATA))
    np.testing.assert_allclose(found.mean(), DATA.mean(0), atol=0.04)
    edge = likelihood.initial(jnp.full((3, *SHAPE), 0.5))
    assert np.all(np.isfinite(edge))


def test_a_bernoulli_has_the_shares_of_ones():
    likelihood = decoders.BernoulliLikelihood()
    binary = (DATA > 0.05).astype(np.float32)
    share = np.clip(binary.mean(0), 1e-3, 1 - 1e-3)
    found = likelihood.apply({}, likelihood.initial(binary)).mean()
    np.testing.assert_allclose(found, share, rtol=1e-4)
    assert binary.mean(0).min() == 0
    assert binary.mean(0).max() == 1


@pytest.mark.parametrize("components", [1, 3])
def test_logistic_distributions_share_the_deviation(components):
    likelihood = decoders.DiscretizedLogisticMixtureLikelihood(num_components=components, bits=5)
    numbers = likelihood.initial(DATA)
    assert numbers.shape == (*SHAPE, likelihood.num_parameters)
    means, raw = numbers[..., :components], numbers[..., components : 2 * components]
    np.testing.assert_allclose(means.mean(-1), DATA.mean(0), atol=1e-5)
    deviations = jax.nn.softplus(raw) * np.pi / np.sqrt(3) * components
    expected = np.broadcast_to(DATA.std(0)[..., None], deviations.shape)
    np.testing.assert_allclose(deviations, expected, rtol=1e-3)
    if components == 3:
        np.testing.assert_allclose(means[..., 2] - means[..., 0], 2 * DATA.std(0), rtol=1e-3)


def test_levels_have_their_frequencies_and_one_more_count():
    likelihood = decoders.CategoricalLikelihood(2)
    data = jnp.array([-0.375, -0.375, -0.125, 0.375]).reshape(4, 1, 1, 1)  # none of the third
    logits = likelihood.initial(data)
    np.testing.assert_allclose(np.exp(logits).ravel(), np.array([3, 2, 1, 2]) / 8, rtol=1e-5)
