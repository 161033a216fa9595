"""Likelihoods start at the first batch, dimension by dimension."""

from __future__ import annotations

import jax
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

    @jax.jit
    def moments(data):
        found = likelihood.apply({}, likelihood.initial(data))
        return found.mean(), found.stddev()

    mean, deviation = moments(DATA)
    np.testing.assert_allclose(mean, DATA.mean(0), atol=1e-5)
    np.testing.assert_allclose(deviation, DATA.std(0), rtol=1e-4)
    _, constant = moments(0 * DATA)
    np.testing.assert_allclose(constant, 2 * decoders.likelihoods.SMALLEST_SCALE, rtol=1e-3)


@jax.jit
def mean_of_continuous_bernoulli(data):
    likelihood = decoders.ContinuousBernoulliLikelihood()
    numbers = likelihood.initial(data)
    return numbers, likelihood.apply({}, numbers).mean()


def test_a_continuous_bernoulli_has_about_the_means():
    _, mean = mean_of_continuous_bernoulli(DATA)
    np.testing.assert_allclose(mean, DATA.mean(0), atol=0.04)
    edge, _ = mean_of_continuous_bernoulli(np.full_like(DATA, 0.5))
    assert np.all(np.isfinite(edge))


def test_a_bernoulli_has_the_shares_of_ones():
    likelihood = decoders.BernoulliLikelihood()
    binary = (DATA > 0.05).astype(np.float32)
    share = np.clip(binary.mean(0), 1e-3, 1 - 1e-3)
    found = jax.jit(lambda data: likelihood.apply({}, likelihood.initial(data)).mean())(binary)
    np.testing.assert_allclose(found, share, rtol=1e-4)
    assert binary.mean(0).min() == 0
    assert binary.mean(0).max() == 1


@pytest.mark.parametrize("components", [1, 3])
def test_logistic_distributions_share_the_deviation(components):
    likelihood = decoders.DiscretizedLogisticMixtureLikelihood(num_components=components, bits=5)
    numbers = np.asarray(jax.jit(likelihood.initial)(DATA))
    assert numbers.shape == (*SHAPE, likelihood.num_parameters)
    means, raw = numbers[..., :components], numbers[..., components : 2 * components]
    np.testing.assert_allclose(means.mean(-1), DATA.mean(0), atol=1e-5)
    deviations = np.logaddexp(0, raw) * np.pi / np.sqrt(3) * components
    expected = np.broadcast_to(DATA.std(0)[..., None], deviations.shape)
    np.testing.assert_allclose(deviations, expected, rtol=1e-3)
    if components == 3:
        np.testing.assert_allclose(means[..., 2] - means[..., 0], 2 * DATA.std(0), rtol=1e-3)


def test_levels_have_their_frequencies_and_one_more_count():
    likelihood = decoders.CategoricalLikelihood(2)
    # None of the third.
    data = np.float32([-0.375, -0.375, -0.125, 0.375]).reshape(4, 1, 1, 1)
    logits = np.asarray(jax.jit(likelihood.initial)(data))
    np.testing.assert_allclose(np.exp(logits).ravel(), np.array([3, 2, 1, 2]) / 8, rtol=1e-5)
