"""Ladders of latents, held against chains whose evidence is known."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import linear_chain as chain
from tests import linear_gaussian as exact
from vaeflow import decoders, encoders, estimators, losses, metrics, models, sharing
from vaeflow._util.arrays import LOCAL, Axis
from vaeflow.encoders.posteriors import positive

KEY = jax.random.key(0)
SHAPE = (6, 5, 2)
IMAGES = np.random.RandomState(0).randint(0, 256, (8, *SHAPE)).astype(np.uint8)
LABELS = jnp.arange(8) % 3
LEVELS = (4, 3, 2)


def ladder(sizes=LEVELS, **more):
    return models.HierarchicalVAE(
        encoders.DenseEncoder((8,)),
        sizes,
        decoders.Decoder(decoders.DenseDecoder((8,)), decoders.BernoulliLikelihood(), SHAPE),
        models.Binarizer(),
        hidden_sizes=(8,),
        **more,
    )


def noisy(model, *arguments):
    """Variables away from their initial values, so that no part is idle."""

    @jax.jit
    def make(*arguments):
        return jax.tree.map(
            lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(leaf.size), leaf.shape),
            model.init(KEY, *arguments),
        )

    return make(*arguments)


def call(model, method, *static, **more):
    """A compiled method of a model, of its variables and arguments; some may be fixed."""
    return jax.jit(functools.partial(model.apply, method=method, **more), static_argnums=static)


@pytest.fixture(scope="module")
def made():
    model = ladder()
    return model, noisy(model, IMAGES)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_exact_conditionals_give_every_sample_the_evidence_as_weight(levels):
    model, variables = chain.model(levels), chain.exact_variables(levels)
    find = jax.jit(functools.partial(estimators.evidence, model, num_samples=5))
    expected = np.broadcast_to(chain.log_likelihood(levels), (5, 3))
    found = find(variables, chain.BATCH, KEY).log_weights()
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    find = jax.jit(functools.partial(losses.importance_weighted, model, num_samples=4))
    bound, aux = find(variables, chain.BATCH, KEY)
    np.testing.assert_allclose(-bound, chain.log_likelihood(levels).mean(), rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["effective_sample_size"], 1, rtol=1e-4)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_exact_elbo_is_the_evidence_and_kls_are_those_of_the_levels(levels):
    model, variables = chain.model(levels), chain.exact_variables(levels)
    rows = {"image": jnp.repeat(chain.DATA, 20_000, axis=0)}
    value, aux = jax.jit(functools.partial(losses.elbo, model))(variables, rows, KEY)
    np.testing.assert_allclose(-value, chain.log_likelihood(levels).mean(), atol=0.03)
    names = {name for name in aux.metrics if name.startswith("kl/")}
    numbered = {f"kl/level_{number}" for number in range(1, levels + 1)}
    assert names == (numbered if levels > 1 else set())
    # In closed form, given the level above, and from the samples: the same on average.
    latents = jax.jit(functools.partial(estimators.evidence, model))(variables, rows, KEY).latents
    for name, kl in latents.kl.items():
        assert kl.shape == (60_000, model.levels[name])
        sampled = (latents.log_q[name] - latents.log_p[name]).mean()
        np.testing.assert_allclose(kl.sum(-1).mean(), sampled, atol=0.03)
        if levels > 1:
            np.testing.assert_allclose(aux.metrics[f"kl/{name}"], kl.sum(-1).mean(), rtol=1e-4)


def test_the_weight_of_inexact_posteriors_rises_to_the_evidence():
    model = chain.model(2)
    variables = jax.tree.map(jnp.asarray, chain.exact_variables(2))
    variables["params"]["messages_0"]["mean"]["bias"] += 0.7
    truth = chain.log_likelihood(2)
    bound = jax.jit(functools.partial(losses.importance_weighted, model, num_samples=1))
    rows = {"image": jnp.repeat(chain.DATA, 500, axis=0)}
    assert -bound(variables, rows, KEY)[0] < truth.mean() - 0.1
    estimate = jax.jit(
        functools.partial(
            metrics.importance_weighted_log_likelihood, model, num_samples=20_000, chunk=500
        )
    )
    np.testing.assert_allclose(estimate(variables, chain.DATA, KEY), truth, atol=0.05)


def test_one_level_is_a_plain_auto_encoder():
    flat = exact.model(encoders.DiagonalGaussianPosterior(exact.LATENTS))
    variables = exact.inexact_variables(flat)
    model = chain.model(1)
    own = {
        "messages_0": variables["params"]["encoder"]["posterior"],
        "decoder": variables["params"]["decoder"],
    }
    keys = jax.random.split(KEY, 3)
    # Each level has noise of its own, by its number from 0 on.
    numbered = jax.vmap(lambda key: jax.random.fold_in(key, 0))(keys)
    plain = call(flat, "infer", 3)(variables, chain.DATA, numbered, 4)
    found = call(model, "infer", 3)({"params": own}, chain.DATA, keys, 4)
    np.testing.assert_allclose(found.z, plain.z, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.kl["level_1"], plain.kl["z"], rtol=1e-5)
    np.testing.assert_allclose(found.log_ratio(), plain.log_ratio(), rtol=1e-4)
    for options in ({"beta": 3.0}, {"free_bits": 0.3}, {"capacity": 9.0}):
        penalties = []
        for loss_of, values in ((model, {"params": own}), (flat, variables)):
            run = jax.jit(functools.partial(losses.elbo, loss_of, **options))
            value, aux = run(values, chain.BATCH, keys)
            penalties.append(value - aux.metrics["reconstruction"])
        np.testing.assert_allclose(penalties[0], penalties[1], rtol=1e-4)


def test_infer_is_bayes_rule_with_messages_for_likelihoods(made):
    model, variables = made
    values = call(model, "observe")(variables, IMAGES, KEY).values
    latents = call(model, "infer", 3)(variables, values, KEY, 3)
    z = model.apply(variables, latents.z, method="split")
    assert {name: part.shape for name, part in z.items()} == {
        "level_1": (3, 8, 4),
        "level_2": (3, 8, 3),
        "level_3": (3, 8, 2),
    }
    bound = model.bind(variables)
    features = bound.network(values)
    for number in (1, 2):
        if number == 2:
            features = bound.up[0](features)
        message = bound.messages[number - 1](features).distribution
        mean, raw = jnp.split(bound.down[number - 1](z[f"level_{number + 1}"]), 2, axis=-1)
        scale = positive(raw)
        precision = scale**-2 + message.scale**-2
        merged = (mean * scale**-2 + message.loc * message.scale**-2) / precision
        name = f"level_{number}"
        log_q = -0.5 * (z[name] - merged) ** 2 * precision + 0.5 * jnp.log(precision / 2 / jnp.pi)
        np.testing.assert_allclose(latents.log_q[name], log_q.sum(-1), rtol=1e-3, atol=1e-3)
    top = bound.messages[2](bound.up[1](features))
    np.testing.assert_allclose(latents.log_q["level_3"], top.log_prob(z["level_3"]), rtol=1e-4)


def test_the_prior_is_one_distribution(made):
    model, variables = made
    latents = call(model, "infer", 3)(variables, jnp.zeros((8, *SHAPE)), KEY, 3)
    prior = model.apply(variables, method="prior")
    assert (prior.event_shape, prior.batch_shape) == ((9,), ())
    np.testing.assert_allclose(
        prior.log_prob(latents.z), sum(latents.log_p.values()), rtol=1e-4, atol=1e-4
    )
    for temperature in (1.0, 0.5):
        prior = model.apply(variables, temperature=temperature, method="prior")
        samples = prior.sample(seed=KEY, sample_shape=50_000)
        z = model.apply(variables, samples, method="split")
        np.testing.assert_allclose(z["level_3"].std(0), temperature, rtol=0.03)
        below = zip(("level_2", "level_1"), ("level_3", "level_2"), (1, 0), strict=True)
        for name, above, network in below:
            mean, raw = jnp.split(model.bind(variables).down[network](z[above]), 2, axis=-1)
            noise = (z[name] - mean) / positive(raw)
            np.testing.assert_allclose(noise.mean(0), 0, atol=0.03)
            covariance = temperature**2 * np.eye(model.levels[name])
            np.testing.assert_allclose(np.cov(noise.T), covariance, atol=0.03)


def test_decoding_needs_the_lowest_level_alone(made):
    model, variables = made
    z = jax.random.normal(KEY, (5, 9))
    shown = model.apply(variables, z, method="decode")
    assert shown.shape == (5, *SHAPE)
    np.testing.assert_array_equal(
        model.apply(variables, z.at[:, 4:].set(7.0), method="decode"), shown
    )
    assert np.any(shown != model.apply(variables, z.at[:, :4].set(3.0), method="decode"))
    with pytest.raises(ValueError, match=r"\(9,\), got an array of shape \(5, 4\)"):
        model.apply(variables, z[:, :4], method="decode")


def test_encoding_is_inference_without_noise():
    model, variables = chain.model(3), chain.exact_variables(3)
    z = model.apply(variables, chain.DATA, KEY, method="encode")
    # Means of a Gaussian, which are those of its conditionals at the means.
    latents = call(model, "infer", 3)(variables, chain.DATA, KEY, 100_000)
    np.testing.assert_allclose(z, latents.z.mean(0), atol=0.02)
    # The prior of a level given the mean above it, by hand.
    shifts = model.apply(variables, chain.DATA, KEY, method="shifts")
    below = (z[:, :2] - z[:, 2:3] @ chain.MAPS[0] - chain.SHIFTS[0]) / chain.SCALES[0]
    np.testing.assert_allclose(shifts[:, :2], below, rtol=1e-4)
    np.testing.assert_allclose(shifts[:, 3], z[:, 3], rtol=1e-5)


def test_free_bits_hold_for_the_latents_of_each_level(made):
    model, variables = made
    batch, keys = {"image": IMAGES}, jax.random.split(KEY, 8)
    run = jax.jit(lambda limit: losses.elbo(model, variables, batch, keys, free_bits=limit))
    value, aux = run(0.0)
    reconstruction = aux.metrics["reconstruction"]
    np.testing.assert_allclose(value, aux.metrics["negative_elbo"], rtol=1e-5)
    kl = jax.jit(functools.partial(estimators.evidence, model))(variables, batch, keys).latents.kl
    np.testing.assert_allclose(run(50.0)[0], reconstruction + 9 * 50, rtol=1e-5)
    limit = float(jnp.mean(kl["level_2"]))
    expected = sum(np.maximum(limit, np.mean(part, axis=0)).sum() for part in kl.values())
    np.testing.assert_allclose(run(limit)[0] - reconstruction, expected, rtol=1e-4)
    assert float(expected) > float(aux.metrics["kl"]) + 0.01


@pytest.mark.parametrize("loss", [losses.elbo, losses.info_vae])
def test_divided_batch_equals_undivided(made, loss):
    model, variables = made
    keys = jax.random.split(KEY, 8)

    @functools.partial(jax.jit, static_argnums=2)
    def run(images, keys, axis):
        value, aux = loss(model, variables, {"image": images}, keys, axis=axis)
        return value, aux.metrics

    whole, found = run(IMAGES, keys, LOCAL)
    part = functools.partial(run, axis=Axis("data"))
    parts = IMAGES.reshape(4, 2, *SHAPE)
    values, measured = jax.vmap(part, axis_name="data")(parts, keys.reshape(4, 2))
    np.testing.assert_allclose(values.mean(), whole, rtol=1e-5)
    for name, value in found.items():
        np.testing.assert_allclose(measured[name].mean(), value, rtol=1e-4, atol=1e-5)


def test_every_level_learns(made):
    model, variables = made
    batch = {"image": IMAGES}
    gradient = jax.jit(jax.grad(lambda v: losses.elbo(model, v, batch, KEY)[0]))(variables)
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert np.all(np.isfinite(leaf)), path
        assert np.any(leaf != 0), path


def test_labels_reach_every_network():
    model = ladder((4, 2), num_classes=3)
    variables = noisy(model, IMAGES, LABELS)
    find = jax.jit(functools.partial(estimators.evidence, model, context_key="label"))
    one, other = (
        find(variables, {"image": IMAGES, "label": labels}, KEY)
        for labels in (LABELS, (LABELS + 1) % 3)
    )
    assert np.abs(one.log_likelihood - other.log_likelihood).min() > 1e-4
    prior = model.apply(variables, LABELS, method="prior")
    assert prior.batch_shape == (8,)
    densities = prior.log_prob(jnp.ones(6))
    np.testing.assert_allclose(densities[0], densities[3], rtol=1e-6)
    assert abs(densities[0] - densities[1]) > 1e-3
    np.testing.assert_allclose(
        prior.log_prob(one.latents.z), sum(one.latents.log_p.values()), rtol=1e-4
    )
    drawn = call(model, "sample", 2)(variables, KEY, 2, LABELS, temperature=0.7)
    assert drawn.shape == (2, 8, *SHAPE)
    assert call(model, "encode")(variables, IMAGES, KEY, LABELS).shape == (8, 6)
    with pytest.raises(ValueError, match="labels of 3 classes are needed, got None"):
        losses.elbo(model, variables, {"image": IMAGES}, KEY)


def test_an_exported_ladder_is_the_ladder(made, tmp_path):
    model, variables = made
    sharing.save_exported(tmp_path / "file", sharing.export_functions(model), variables, {})
    loaded = sharing.load_exported(tmp_path / "file")
    keys = jax.random.split(jax.random.key(5, impl="threefry2x32"), 8)
    data = jax.random.key_data(keys)
    z = call(model, "encode")(variables, IMAGES, keys)
    np.testing.assert_allclose(loaded["encode"](IMAGES, data), z, rtol=1e-4, atol=1e-5)
    shown = model.apply(variables, z, method="decode")
    np.testing.assert_array_equal(loaded["decode"](z), shown)
    find = jax.jit(functools.partial(estimators.evidence, model))
    expected = find(variables, {"image": IMAGES}, keys).log_weights()[0]
    np.testing.assert_allclose(loaded["elbo"](IMAGES, data), expected, rtol=1e-4)
    cold = loaded["sample"](data[:3], np.float32(0.0))
    np.testing.assert_array_equal(cold[0], cold[1])
    assert loaded["sample"](data, np.float32(1.0)).shape == (8, *SHAPE)


@pytest.mark.parametrize("sizes", [(), (3, 0)])
def test_levels_without_latents_raise(sizes):
    with pytest.raises(ValueError, match="latent_sizes must hold numbers of at least 1"):
        ladder(sizes).init(KEY, IMAGES)
