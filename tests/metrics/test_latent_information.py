"""Mutual information of examples and latents against quadrature."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from tests import linear_gaussian as exact
from vaeflow import encoders, metrics

KEY = jax.random.key(0)
MODEL = exact.model(encoders.DiagonalGaussianPosterior(exact.LATENTS))


@functools.partial(jax.jit, static_argnames=("model", "chunk"))
def information(variables, images, model=MODEL, chunk=100):
    return metrics.latent_information(model, variables, images, KEY, chunk=chunk)


def test_the_parts_are_those_of_quadrature():
    variables = exact.diagonal_variables()
    # Copies of the images have the same aggregate posterior, and tell no more.
    result = information(variables, np.tile(exact.DATA, (600, 1, 1, 1)))

    @jax.jit
    def log_aggregate_and_prior(z):
        posterior = MODEL.apply(variables, exact.DATA, method="posterior")
        prior = MODEL.apply(variables, method="prior")
        aggregate = jax.nn.logsumexp(posterior.log_prob(z[:, None]), axis=1) - np.log(3)
        return aggregate, prior.log_prob(z), posterior.kl_divergence(prior).mean()

    def log_aggregate(z):
        return np.asarray(log_aggregate_and_prior(z)[0])

    def difference(z):
        aggregate, prior, _ = jax.device_get(log_aggregate_and_prior(z))
        return aggregate - prior

    marginal = metrics.expectation(log_aggregate, difference, (-8, -8), (8, 8), 300)
    kl = float(log_aggregate_and_prior(np.zeros((90_000, 2), np.float32))[2])
    assert result.marginal_kl == pytest.approx(marginal, abs=0.06)
    assert result.kl == pytest.approx(kl, abs=0.06)
    assert result.mutual_information == pytest.approx(kl - marginal, abs=0.06)
    assert result.mutual_information > 0.5 < result.marginal_kl


def test_information_is_between_nothing_and_the_logarithm_of_the_size():
    variables = exact.diagonal_variables()
    alike = np.tile(exact.DATA[:1], (50, 1, 1, 1))
    # A chunk need not divide the number of images.
    assert abs(information(variables, alike, chunk=7).mutual_information) < 1e-5
    apart = alike + 1000 * np.arange(50, dtype=np.float32)[:, None, None, None]
    result = information(variables, apart, chunk=7)
    assert result.mutual_information == pytest.approx(np.log(50), abs=1e-3)


def test_posteriors_need_not_have_independent_entries():
    model, variables = exact.model(), exact.exact_variables()
    result = information(variables, np.tile(exact.DATA, (200, 1, 1, 1)), model)

    @jax.jit
    def kl(variables):
        posterior = model.apply(variables, exact.DATA, method="posterior")
        z = posterior.sample(seed=KEY, sample_shape=2000)
        prior = model.apply(variables, method="prior")
        return (posterior.log_prob(z) - prior.log_prob(z)).mean()

    assert result.kl == pytest.approx(float(kl(variables)), abs=0.1)
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        information(variables, exact.DATA, model, 0)
    with pytest.raises(ValueError, match="2 rows or more"):
        information(variables, exact.DATA[:1], model)
