"""Annealed importance sampling of models with known evidence."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from tests import linear_gaussian as exact
from vaeflow import bases, encoders, losses, metrics
from vaeflow.models.preprocessing import Dequantized

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 3)
DIAGONAL = exact.model(encoders.DiagonalGaussianPosterior(exact.LATENTS))


SETTINGS = ("num_chains", "num_temperatures", "num_leapfrog_steps")
RUN = jax.jit(
    metrics.annealed_importance_log_likelihood, static_argnums=0, static_argnames=SETTINGS
)


def estimate(model, variables, images=exact.DATA, rng=KEY, **settings):
    return np.asarray(RUN(model, variables, images, rng, **settings))


def test_bounds_rise_to_the_evidence_which_annealing_reaches():
    variables, truth = exact.diagonal_variables(), exact.log_likelihood().mean()

    @jax.jit
    def bounds_of(variables):
        rows = {"image": jnp.tile(exact.DATA, (3000, 1, 1, 1))}
        # Both are one number on average; one has its KL in closed form.
        elbo = -losses.elbo(DIAGONAL, variables, rows, KEY)[0]
        bound = functools.partial(losses.importance_weighted, DIAGONAL, variables, rows, KEY)
        return elbo, [-bound(num_samples=samples)[0] for samples in (1, 2, 8)]

    elbo, bounds = jax.device_get(bounds_of(variables))
    annealed = estimate(
        DIAGONAL, variables, num_chains=2000, num_temperatures=300, num_leapfrog_steps=2
    )
    assert elbo <= bounds[0] + 0.02
    assert np.all(np.diff(bounds) > 0.05)
    assert bounds[-1] <= annealed.mean()
    assert annealed.mean() == pytest.approx(truth, abs=0.01)
    np.testing.assert_allclose(annealed, exact.log_likelihood(), atol=0.03)


def test_few_temperatures_leave_the_mean_weight_unbiased():
    # One is importance sampling from the prior.
    for temperatures, chains in ((1, 100_000), (10, 10_000)):
        result = estimate(
            DIAGONAL,
            exact.diagonal_variables(),
            num_chains=chains,
            num_temperatures=temperatures,
            num_leapfrog_steps=1,
        )
        np.testing.assert_allclose(result, exact.log_likelihood(), atol=0.1)


def test_the_chain_that_tunes_step_sizes_is_not_counted():
    # One chain for each of many copies of an image: the mean of their weights is unbiased.
    copies = np.tile(exact.DATA[:1], (40_000, 1, 1, 1))
    result = estimate(
        DIAGONAL,
        exact.diagonal_variables(),
        copies,
        num_chains=1,
        num_temperatures=1,
        num_leapfrog_steps=1,
    )
    mean = scipy.special.logsumexp(np.float64(result)) - np.log(len(copies))
    assert mean == pytest.approx(exact.log_likelihood()[0], abs=0.2)  # twice would be 0.69 more


@pytest.mark.slow
def test_step_sizes_follow_the_scale_of_a_labelled_prior():
    # Wide latents in one class, narrow ones in the other, and a shift of the images for each.
    model = exact.model(
        encoders.DiagonalGaussianPosterior(exact.LATENTS),
        bases.LabelledGaussianBase((exact.LATENTS,), num_classes=2),
        num_classes=2,
    )
    mean, scale = np.array([[0.0, 5.0], [-3.0, 1.0]]), np.array([3.0, 0.1])
    shift = np.random.RandomState(1).normal(size=(2, exact.SIZE))
    decoder = exact.decoder_variables()
    decoder["network"]["Dense_0"]["kernel"] = jnp.float32(np.vstack([exact.WEIGHTS, shift]))
    prior = {
        "mean": jnp.float32(mean),
        "log_scale": jnp.float32(np.log(scale)[:, None] * np.ones(exact.LATENTS)),
    }
    labels = np.array([0, 1, 0])
    truth = [
        scipy.stats.multivariate_normal(
            exact.OFFSET + shift[label] + mean[label] @ exact.WEIGHTS,
            scale[label] ** 2 * exact.WEIGHTS.T @ exact.WEIGHTS
            + exact.NOISE**2 * np.eye(exact.SIZE),
        ).logpdf(image.reshape(-1))
        for image, label in zip(exact.DATA, labels, strict=True)
    ]
    result = estimate(
        model,
        {"params": {"decoder": decoder, "prior_model": prior}},
        num_chains=300,
        num_temperatures=500,
        num_leapfrog_steps=3,
        context=labels,
    )
    np.testing.assert_allclose(result, truth, atol=0.1)


def test_rows_have_keys_of_their_own_and_are_independent():
    settings = {"num_chains": 3, "num_temperatures": 20, "num_leapfrog_steps": 2}
    variables, keys = exact.diagonal_variables(), KEYS
    whole = estimate(DIAGONAL, variables, rng=keys, **settings)
    order = np.array([2, 0, 1])
    turned = estimate(DIAGONAL, variables, exact.DATA[order], keys[order], **settings)
    np.testing.assert_allclose(turned, whole[order], rtol=1e-5)
    spoilt = np.where(np.arange(3)[:, None, None, None] == 1, np.nan, exact.DATA)
    result = estimate(DIAGONAL, variables, spoilt, keys, **settings)
    np.testing.assert_allclose(result[[0, 2]], whole[[0, 2]], rtol=1e-5)
    assert np.isnan(result[1])


class Denser(exact.Observed):
    """Observed values that count for more than an image."""

    def __call__(self, images, keys):
        return Dequantized(images, jnp.full(len(images), 2.5))


def test_log_det_of_the_observation_is_included():
    settings = {"num_chains": 3, "num_temperatures": 20, "num_leapfrog_steps": 2}
    plain = estimate(DIAGONAL, exact.diagonal_variables(), rng=KEYS, **settings)
    denser = DIAGONAL.clone(observation=Denser())
    result = estimate(denser, exact.diagonal_variables(), rng=KEYS, **settings)
    np.testing.assert_allclose(result, plain + 2.5, rtol=1e-6)


def test_latents_without_gradients_raise():
    groups = {"a": encoders.DiagonalGaussianPosterior(1), "b": encoders.ConcretePosterior(2)}
    model = exact.model(encoders.GroupedPosterior(groups))
    with pytest.raises(ValueError, match="latents must be continuous for AIS, got Concrete ones"):
        metrics.annealed_importance_log_likelihood(
            model, exact.inexact_variables(exact.model()), exact.DATA, KEY
        )
    for name in SETTINGS:
        with pytest.raises(ValueError, match="must be at least 1, got "):
            estimate(DIAGONAL, {}, **{name: 0})
