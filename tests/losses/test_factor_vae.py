"""The FactorVAE's two players, held against a total correlation that is known."""

from __future__ import annotations

import functools
import math

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from tests import linear_chain as chain
from tests import linear_gaussian as exact
from tests.variables import drawn_variables
from vaeflow import encoders, losses, models, training
from vaeflow._util.arrays import LOCAL, Axis
from vaeflow.estimators import split_rows
from vaeflow.losses.factor_vae import permute_dimensions, variable_of_latents
from vaeflow.nn import LatentDiscriminator

KEY = jax.random.key(0)
VAE = exact.model(encoders.DiagonalGaussianPosterior(exact.LATENTS))
MODEL = models.FactorVAE(VAE, LatentDiscriminator((32, 32)))
MIXING = np.array([[1.0, 0.8], [0.0, 0.6], [0.0, 0.0], [0.0, 0.0]], np.float32)
SCALE = 0.3
"""Of the posterior: latents of images of white noise have means of correlation 0.8."""
MIXINGS = {"correlated": MIXING, "independent": np.eye(4, 2, dtype=np.float32)}
PLAYERS = {"model": losses.factor_vae, "discriminator": losses.factor_vae_discriminator}


def images(seed, count):
    return np.random.RandomState(seed).normal(size=(count, *exact.SHAPE)).astype(np.float32)


BATCH = {"image": images(1, 8)}


def total_correlation(mixing):
    """-1/2 log det of the correlations of q(z), a normal, in nats."""
    covariance = mixing.T @ mixing + SCALE**2 * np.eye(exact.LATENTS)
    deviations = np.sqrt(np.diag(covariance))
    return -0.5 * np.linalg.slogdet(covariance / np.outer(deviations, deviations))[1]


@functools.cache
def judge():
    """Parameters of any discriminator."""
    return drawn_variables(MODEL.init, BATCH["image"])["params"]["discriminator"]


def variables(mixing=MIXING):
    """Posteriors N(x A, s^2), and any discriminator."""
    posterior = exact.gaussian_variables(np.full(exact.LATENTS, SCALE))
    posterior["mean"] = {"kernel": mixing, "bias": np.zeros(exact.LATENTS, np.float32)}
    model = {"encoder": {"posterior": posterior}, "decoder": exact.decoder_variables()}
    params = {"model": model, "discriminator": judge()}
    shapes = jax.eval_shape(MODEL.init, KEY, BATCH["image"])["params"]
    assert set(shapes) == set(PLAYERS)
    assert jax.tree.structure(shapes) == jax.tree.structure(params)
    return {"params": params}


OPTIMIZERS = {
    "model": optax.set_to_zero(),
    "discriminator": optax.adam(optax.cosine_decay_schedule(1e-2, 300)),
}


@functools.cache
def update():
    return jax.jit(training.make_update(MODEL, PLAYERS, OPTIMIZERS))


@functools.cache
def trained(kind):
    """A discriminator trained beside a model that stands still."""
    state = training.create_train_state(variables(MIXINGS[kind]), OPTIMIZERS)
    history = []
    for step in range(300):
        keys = jax.random.split(jax.random.key(step), 512)
        state, metrics = update()(state, {"image": images(step, 512)}, keys)
        history.append(metrics)
    return training.variables_of(state)["params"], history[-50:]


@jax.jit
def model_loss(params, gamma=10.0):
    batch = {"image": images(10**6, 20_000)}
    value, aux = losses.factor_vae(MODEL, {"params": params}, batch, KEY, gamma=gamma)
    return value, aux.metrics


def estimate(params):
    return model_loss(params)[1]["total_correlation"]


def test_the_logits_come_to_the_exact_total_correlation():
    params, history = trained("correlated")
    expected = total_correlation(MIXING)
    assert expected == pytest.approx(0.387, abs=0.001)
    # The logits of these normals are quadratic, those of the network straight far out: 0.02 less.
    assert estimate(params) == pytest.approx(expected, abs=0.04)
    # At the ratio of densities the loss is log 2 less what a sample tells of its kind.
    late = np.mean([float(metrics["discriminator/loss"]) for metrics in history])
    right = np.mean([float(metrics["discriminator/accuracy"]) for metrics in history])
    assert 0.9 * math.log(2) > late > math.log(2) - expected
    assert 0.6 < right < 0.8


def test_independent_latents_have_no_total_correlation():
    params, history = trained("independent")
    assert estimate(params) == pytest.approx(0.0, abs=0.02)
    right = np.mean([float(metrics["discriminator/accuracy"]) for metrics in history])
    assert right == pytest.approx(0.5, abs=0.02)


def test_down_its_gradient_latents_share_less():
    params, _ = trained("correlated")

    @jax.jit
    def descend(params):
        before, slope = jax.value_and_grad(estimate)(params)
        model = jax.tree.map(lambda leaf, by: leaf - 0.05 * by, params["model"], slope["model"])
        return before, slope["model"], estimate({**params, "model": model})

    before, slope, after = jax.device_get(descend(params))
    # The second latent has 0.8 of what the first latent is.
    assert slope["encoder"]["posterior"]["mean"]["kernel"][0, 1] > 0.05
    assert after < before - 0.01


def test_the_loss_is_the_negative_elbo_and_the_weighted_estimate():
    params = variables()["params"]
    value, parts = model_loss(params, 7.0)
    expected = parts["negative_elbo"] + 7.0 * parts["total_correlation"]
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    batch = {"image": images(10**6, 20_000)}
    plain, aux = jax.jit(functools.partial(losses.elbo, VAE))(
        {"params": params["model"]}, batch, KEY
    )
    np.testing.assert_allclose(parts["negative_elbo"], plain, rtol=1e-5)
    assert set(parts) == {*aux.metrics, "total_correlation"}


def test_discriminators_loss_moves_only_the_discriminator():
    def loss(params):
        return losses.factor_vae_discriminator(MODEL, {"params": params}, BATCH, KEY)[0]

    gradient = jax.device_get(jax.jit(jax.grad(loss))(variables()["params"]))
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradient["model"]))
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient["discriminator"]))


def test_the_discriminators_loss_is_the_cross_entropy_of_both_kinds():
    class Given(nn.Module):
        """Logits of the first entry alone, of which shuffling leaves the set as it is."""

        @nn.compact
        def __call__(self, z):
            return 3.0 * z[:, 0] + self.param("offset", nn.initializers.ones, ())

    model = models.FactorVAE(VAE, Given())
    made = variables()
    made["params"]["discriminator"] = {"offset": np.float32(1.0)}
    data = images(2, 7)  # so that right and wrong can't be as many

    @jax.jit
    def run(made):
        value, aux = losses.factor_vae_discriminator(model, made, {"image": data}, KEY)
        _, second = split_rows(KEY, 7)
        own = models.submodel(model, made, "model")[1]
        z = VAE.apply(own, data, second, 2, method="infer").z
        return value, aux.metrics["accuracy"], z[..., 0]

    value, accuracy, both = jax.device_get(run(made))
    joint, product = 1 / (1 + np.exp(-(3 * both + 1)))
    expected = -0.5 * (np.log(joint).mean() + np.log(1 - product).mean())
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    right = 0.5 * ((joint > 0.5).mean() + (product <= 0.5).mean())
    np.testing.assert_allclose(accuracy, right, rtol=1e-6)


def test_every_dimension_moves_to_another_row():
    z = np.arange(24, dtype=np.float32).reshape(8, 3)
    permute = jax.jit(permute_dimensions)
    found = np.asarray(permute(z, KEY))
    np.testing.assert_array_equal(np.sort(found, axis=0), z)
    assert np.all(found != z)
    sources = (found // 3).astype(int)
    assert np.any(sources[:, 0] != sources[:, 1])
    np.testing.assert_array_equal(permute(z, KEY), found)
    assert np.any(np.asarray(permute(z, jax.random.key(1))) != found)
    with pytest.raises(ValueError, match="must hold 2 rows or more"):
        permute_dimensions(z[:1], KEY)


def test_source_rows_are_uniform():
    z = np.arange(4, dtype=np.float32)[:, None]
    draw = jax.vmap(lambda key: permute_dimensions(z, key)[:, 0])
    found = np.asarray(jax.jit(lambda key: draw(jax.random.split(key, 3000)))(KEY))
    for row in range(4):
        counts = np.bincount(found[:, row].astype(int), minlength=4)
        assert counts[row] == 0
        np.testing.assert_allclose(np.delete(counts, row) / 3000, 1 / 3, atol=0.03)


@pytest.mark.slow
def test_discrete_variable_is_one_dimension():
    groups = {
        "style": encoders.DiagonalGaussianPosterior(2),
        "digit": encoders.ConcretePosterior(3),
        "rest": encoders.FullGaussianPosterior(1),
    }
    grouped = exact.model(encoders.GroupedPosterior(groups))
    numbers = []

    @jax.jit
    def run():
        made = grouped.init(KEY, BATCH["image"])
        posterior = grouped.apply(made, BATCH["image"], method="posterior")
        numbers.append(variable_of_latents(posterior))
        z = posterior.sample(seed=KEY)
        return z, permute_dimensions(z, KEY, numbers[0])

    z, found = jax.device_get(run())
    np.testing.assert_array_equal(numbers[0], [0, 1, 2, 2, 2, 3])
    np.testing.assert_allclose(found[:, 2:5].sum(-1), 1, rtol=1e-5)
    assert np.all(found[:, :2] != z[:, :2])


@pytest.mark.parametrize("loss", PLAYERS.values())
def test_models_without_players_or_posterior_raise(loss):
    pair = models.FactorVAE(chain.model(2), LatentDiscriminator((4,)))
    with pytest.raises(ValueError, match=r"a single posterior .* HierarchicalVAE has none"):
        loss(pair, {"params": {"model": {}, "discriminator": {}}}, BATCH, KEY)
    with pytest.raises(ValueError, match=r"among \['decoder', 'encoder'\], got 'model'"):
        loss(VAE, exact.diagonal_variables(), BATCH, KEY)


@pytest.mark.parametrize("name", PLAYERS)
def test_divided_batch_equals_undivided(name):
    keys, found = jax.random.split(KEY, 8), variables()

    def loss(images, keys, axis=LOCAL):
        def value(params):
            return PLAYERS[name](MODEL, {"params": params}, {"image": images}, keys, axis=axis)

        (value, aux), gradient = jax.value_and_grad(value, has_aux=True)(found["params"])
        return value, aux.metrics, gradient[name]

    whole = jax.jit(loss)(BATCH["image"], keys)
    divided = jax.vmap(functools.partial(loss, axis=Axis("data")), axis_name="data")
    every = jax.jit(divided)(BATCH["image"][:, None], keys[:, None])
    for a, b in zip(jax.tree.leaves(every), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a.mean(0), b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strategy", [pytest.param("jit", marks=pytest.mark.slow), "pmap"])
def test_players_are_trained_by_either_strategy(strategy):
    optimizers = {"model": optax.adam(1e-2), "discriminator": optax.adam(1e-2)}
    step = training.make_train_step(
        MODEL,
        PLAYERS,
        optimizers,
        seed=0,
        strategy=training.make_strategy(strategy),
        weights={"model": {"gamma": losses.linear_schedule(2, end=4.0)}},
    )
    state = training.create_train_state(variables(), optimizers)
    batch = training.make_strategy(strategy).place(BATCH, 0)
    for _ in range(2):
        state, metrics = step(state, batch)
    expected = metrics["model/negative_elbo"] + 2.0 * metrics["model/total_correlation"]
    np.testing.assert_allclose(metrics["model/loss"], expected, rtol=1e-6)
    found = training.variables_of(state)
    before = variables()
    for name in PLAYERS:
        moved = [
            np.any(np.asarray(new) != np.asarray(old))
            for new, old in zip(
                jax.tree.leaves(found["params"][name]),
                jax.tree.leaves(before["params"][name]),
                strict=True,
            )
        ]
        assert any(moved)
