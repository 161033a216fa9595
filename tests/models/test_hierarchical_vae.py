"""Ladders of latents, held against chains whose evidence is known."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import linear_chain as chain
from tests import linear_gaussian as exact
from tests.variables import drawn_variables
from vaeflow import decoders, encoders, estimators, losses, metrics, models, sharing
from vaeflow._util.arrays import LOCAL, Axis
from vaeflow.encoders.posteriors import positive

KEY = jax.random.key(0)
SHAPE = (6, 5, 2)
IMAGES = np.random.RandomState(0).randint(0, 256, (8, *SHAPE)).astype(np.uint8)
LABELS = np.arange(8) % 3
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


def call(model, method, *static, **more):
    """A compiled method of a model, of its variables and arguments; some may be fixed."""
    return jax.jit(functools.partial(model.apply, method=method, **more), static_argnums=static)


@pytest.fixture(scope="module")
def made():
    model = ladder()
    return model, drawn_variables(model.init, IMAGES)


@pytest.mark.parametrize("levels", [1, 3])
def test_exact_conditionals_give_every_sample_the_evidence_as_weight(levels):
    model = chain.model(levels)

    @jax.jit
    def run(variables):
        found = estimators.evidence(model, variables, chain.BATCH, KEY, num_samples=5)
        bound = losses.importance_weighted(model, variables, chain.BATCH, KEY, num_samples=4)
        return found.log_weights(), bound

    found, (bound, aux) = run(chain.exact_variables(levels))
    expected = np.broadcast_to(chain.log_likelihood(levels), (5, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(-bound, chain.log_likelihood(levels).mean(), rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["effective_sample_size"], 1, rtol=1e-4)


@pytest.mark.parametrize("levels", [1, 3])
def test_the_exact_elbo_is_the_evidence_and_kls_are_those_of_the_levels(levels):
    model = chain.model(levels)
    rows = {"image": np.repeat(chain.DATA, 20_000, axis=0)}

    @jax.jit
    def run(variables):
        latents = estimators.evidence(model, variables, rows, KEY).latents
        sampled = {name: latents.log_q[name] - latents.log_p[name] for name in latents.kl}
        return losses.elbo(model, variables, rows, KEY), latents.kl, sampled

    (value, aux), kls, sampled = jax.device_get(run(chain.exact_variables(levels)))
    np.testing.assert_allclose(-value, chain.log_likelihood(levels).mean(), atol=0.03)
    names = {name for name in aux.metrics if name.startswith("kl/")}
    numbered = {f"kl/level_{number}" for number in range(1, levels + 1)}
    assert names == (numbered if levels > 1 else set())
    # In closed form, given the level above, and from the samples: the same on average.
    for name, kl in kls.items():
        assert kl.shape == (60_000, model.levels[name])
        np.testing.assert_allclose(kl.sum(-1).mean(), sampled[name].mean(), atol=0.03)
        if levels > 1:
            np.testing.assert_allclose(aux.metrics[f"kl/{name}"], kl.sum(-1).mean(), rtol=1e-4)


def test_the_weight_of_inexact_posteriors_rises_to_the_evidence():
    model = chain.model(2)
    variables = jax.device_get(chain.exact_variables(2))
    moved = variables["params"]["messages_0"]["mean"]
    moved["bias"] = moved["bias"] + np.float32(0.7)
    truth = chain.log_likelihood(2)
    rows = {"image": np.repeat(chain.DATA, 500, axis=0)}

    @jax.jit
    def run(variables):
        bound = losses.importance_weighted(model, variables, rows, KEY, num_samples=1)[0]
        estimate = metrics.importance_weighted_log_likelihood
        return bound, estimate(model, variables, chain.DATA, KEY, num_samples=20_000, chunk=500)

    bound, estimate = run(variables)
    assert -bound < truth.mean() - 0.1
    np.testing.assert_allclose(estimate, truth, atol=0.05)


def test_one_level_is_a_plain_auto_encoder():
    flat = exact.model(encoders.DiagonalGaussianPosterior(exact.LATENTS))
    model = chain.model(1)
    penalties = ({"beta": 3.0}, {"free_bits": 0.3}, {"capacity": 9.0})

    @jax.jit
    def run():
        posterior = flat.init(jax.random.key(3), chain.DATA)["params"]["encoder"]
        decoder = exact.decoder_variables()
        variables = {"params": {"encoder": posterior, "decoder": decoder}}
        own = {"params": {"messages_0": posterior["posterior"], "decoder": decoder}}
        keys = jax.random.split(KEY, 3)
        # Each level has noise of its own, by its number from 0 on.
        numbered = jax.vmap(lambda key: jax.random.fold_in(key, 0))(keys)
        plain = flat.apply(variables, chain.DATA, numbered, 4, method="infer")
        found = model.apply(own, chain.DATA, keys, 4, method="infer")
        of_losses = []
        for options in penalties:
            for each, values in ((model, own), (flat, variables)):
                value, aux = losses.elbo(each, values, chain.BATCH, keys, **options)
                of_losses.append(value - aux.metrics["reconstruction"])
        ratios = plain.log_ratio(), found.log_ratio()
        return (plain.z, found.z), (plain.kl["z"], found.kl["level_1"]), ratios, of_losses

    z, kl, ratios, of_losses = jax.device_get(run())
    np.testing.assert_allclose(z[1], z[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(kl[1], kl[0], rtol=1e-5)
    np.testing.assert_allclose(ratios[1], ratios[0], rtol=1e-4)
    np.testing.assert_allclose(of_losses[::2], of_losses[1::2], rtol=1e-4)


def test_infer_is_bayes_rule_with_messages_for_likelihoods(made):
    model, variables = made

    @jax.jit
    def run(variables):
        values = model.apply(variables, IMAGES, KEY, method="observe").values
        latents = model.apply(variables, values, KEY, 3, method="infer")
        z = model.apply(variables, latents.z, method="split")
        bound, expected = model.bind(variables), {}
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
            log_q = -0.5 * (z[name] - merged) ** 2 * precision
            expected[name] = (log_q + 0.5 * jnp.log(precision / 2 / jnp.pi)).sum(-1)
        top = bound.messages[2](bound.up[1](features))
        return z, latents.log_q, expected, top.log_prob(z["level_3"])

    z, log_q, expected, top = jax.device_get(run(variables))
    assert {name: part.shape for name, part in z.items()} == {
        "level_1": (3, 8, 4),
        "level_2": (3, 8, 3),
        "level_3": (3, 8, 2),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(log_q[name], values, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(log_q["level_3"], top, rtol=1e-4)


def test_the_prior_is_one_distribution(made):
    model, variables = made

    @jax.jit
    def run(variables):
        bound = model.bind(variables)
        latents = model.apply(variables, jnp.zeros((8, *SHAPE)), KEY, 3, method="infer")
        prior = bound.prior()
        assert (prior.event_shape, prior.batch_shape) == ((9,), ())
        densities = prior.log_prob(latents.z), sum(latents.log_p.values())

        def noise_at(temperature):
            samples = bound.prior(temperature=temperature).sample(seed=KEY, sample_shape=50_000)
            z = bound.split(samples)
            noise = {"level_3": z["level_3"] / temperature}
            below = zip(("level_2", "level_1"), ("level_3", "level_2"), (1, 0), strict=True)
            for name, above, network in below:
                mean, raw = jnp.split(bound.down[network](z[above]), 2, axis=-1)
                noise[name] = (z[name] - mean) / positive(raw)
            return noise

        return densities, {temperature: noise_at(temperature) for temperature in (1.0, 0.5)}

    densities, found = jax.device_get(run(variables))
    np.testing.assert_allclose(*densities, rtol=1e-4, atol=1e-4)
    for temperature, noise in found.items():
        np.testing.assert_allclose(noise["level_3"].std(0), 1, rtol=0.03)
        for name in ("level_2", "level_1"):
            np.testing.assert_allclose(noise[name].mean(0), 0, atol=0.03)
            covariance = temperature**2 * np.eye(model.levels[name])
            np.testing.assert_allclose(np.cov(noise[name].T), covariance, atol=0.03)


def test_decoding_needs_the_lowest_level_alone(made):
    model, variables = made
    z = np.random.RandomState(0).normal(size=(5, 9)).astype(np.float32)
    other, lowest = z.copy(), z.copy()
    other[:, 4:], lowest[:, :4] = 7.0, 3.0
    decode = call(model, "decode")
    shown, same, changed = (np.asarray(decode(variables, each)) for each in (z, other, lowest))
    assert shown.shape == (5, *SHAPE)
    np.testing.assert_array_equal(same, shown)
    assert np.any(changed != shown)
    with pytest.raises(ValueError, match=r"\(9,\), got an array of shape \(5, 4\)"):
        model.apply(variables, z[:, :4], method="decode")


def test_encoding_is_inference_without_noise():
    model = chain.model(3)

    @jax.jit
    def run(variables):
        apply = functools.partial(model.apply, variables, chain.DATA, KEY)
        mean = apply(100_000, method="infer").z.mean(0)
        return apply(method="encode"), mean, apply(method="shifts")

    # Means of a Gaussian, which are those of its conditionals at the means.
    z, mean, shifts = jax.device_get(run(chain.exact_variables(3)))
    np.testing.assert_allclose(z, mean, atol=0.02)
    # The prior of a level given the mean above it, by hand.
    below = (z[:, :2] - z[:, 2:3] @ chain.MAPS[0] - chain.SHIFTS[0]) / chain.SCALES[0]
    np.testing.assert_allclose(shifts[:, :2], below, rtol=1e-4)
    np.testing.assert_allclose(shifts[:, 3], z[:, 3], rtol=1e-5)


def test_free_bits_hold_for_the_latents_of_each_level(made):
    model, variables = made
    batch = {"image": IMAGES}

    @jax.jit
    def run(variables):
        keys = jax.random.split(KEY, 8)
        kl = estimators.evidence(model, variables, batch, keys).latents.kl
        limits = jnp.stack([0.0, 50.0, jnp.mean(kl["level_2"])])
        loss = lambda limit: losses.elbo(model, variables, batch, keys, free_bits=limit)  # noqa: E731
        values, aux = jax.vmap(loss)(limits)
        return values, aux.metrics, kl, limits[2]

    values, found, kl, limit = jax.device_get(run(variables))
    reconstruction = found["reconstruction"][0]
    np.testing.assert_allclose(values[0], found["negative_elbo"][0], rtol=1e-5)
    np.testing.assert_allclose(values[1], reconstruction + 9 * 50, rtol=1e-5)
    expected = sum(np.maximum(limit, np.mean(part, axis=0)).sum() for part in kl.values())
    np.testing.assert_allclose(values[2] - reconstruction, expected, rtol=1e-4)
    assert float(expected) > float(found["kl"][0]) + 0.01


@pytest.mark.parametrize(
    "loss", [losses.elbo, pytest.param(losses.info_vae, marks=pytest.mark.slow)]
)
def test_divided_batch_equals_undivided(made, loss):
    model, variables = made

    def evaluate(images, keys, axis):
        value, aux = loss(model, variables, {"image": images}, keys, axis=axis)
        return value, aux.metrics

    @jax.jit
    def run():
        keys = jax.random.split(KEY, 8)
        part = functools.partial(evaluate, axis=Axis("data"))
        parts = IMAGES.reshape(4, 2, *SHAPE)
        divided = jax.vmap(part, axis_name="data")(parts, keys.reshape(4, 2))
        return evaluate(IMAGES, keys, LOCAL), divided

    (whole, found), (values, measured) = jax.device_get(run())
    np.testing.assert_allclose(values.mean(), whole, rtol=1e-5)
    for name, value in found.items():
        np.testing.assert_allclose(measured[name].mean(), value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_every_level_learns(made):
    model, variables = made
    batch = {"image": IMAGES}
    gradient = jax.jit(jax.grad(lambda v: losses.elbo(model, v, batch, KEY)[0]))(variables)
    for path, leaf in jax.tree.leaves_with_path(jax.device_get(gradient)):
        assert np.all(np.isfinite(leaf)), path
        assert np.any(leaf != 0), path


@pytest.mark.slow
def test_labels_reach_every_network():
    model = ladder((4, 2), num_classes=3)

    @jax.jit
    def run():
        variables = drawn_variables(model.init, IMAGES, context=LABELS)

        def find(labels):
            batch = {"image": IMAGES, "label": labels}
            return estimators.evidence(model, variables, batch, KEY, context_key="label")

        found = jax.vmap(find)(np.stack([LABELS, (LABELS + 1) % 3]))
        one = jax.tree.map(lambda leaf: leaf[0], found.latents)
        prior = model.apply(variables, context=LABELS, method="prior")
        assert prior.batch_shape == (8,)
        densities = prior.log_prob(jnp.ones(6)), prior.log_prob(one.z), sum(one.log_p.values())
        options = {"temperature": 0.7, "method": "sample"}
        drawn = model.apply(variables, KEY, 2, context=LABELS, **options)
        return found.log_likelihood, densities, drawn

    (one, other), (densities, of_samples, expected), drawn = jax.device_get(run())
    assert np.abs(one - other).min() > 1e-4
    np.testing.assert_allclose(densities[0], densities[3], rtol=1e-6)
    assert abs(densities[0] - densities[1]) > 1e-3
    np.testing.assert_allclose(of_samples, expected, rtol=1e-4)
    assert drawn.shape == (2, 8, *SHAPE)

    def encode(labels):
        variables = model.init(KEY, IMAGES, context=LABELS)
        if labels is None:
            return losses.elbo(model, variables, {"image": IMAGES}, KEY)
        return model.apply(variables, IMAGES, KEY, context=labels, method="encode")

    assert jax.eval_shape(lambda: encode(LABELS)).shape == (8, 6)
    with pytest.raises(ValueError, match=r"labels of 3 classes are needed, .* got None"):
        jax.eval_shape(lambda: encode(None))


@pytest.mark.slow
def test_an_exported_ladder_is_the_ladder(made, tmp_path):
    model, variables = made
    sharing.save_exported(tmp_path / "file", sharing.export_functions(model), variables, {})
    loaded = sharing.load_exported(tmp_path / "file")
    keys = jax.random.split(jax.random.key(5, impl="threefry2x32"), 8)

    @jax.jit
    def run(variables, keys):
        z = model.apply(variables, IMAGES, keys, method="encode")
        evidence = estimators.evidence(model, variables, {"image": IMAGES}, keys)
        return z, model.apply(variables, z, method="decode"), evidence.log_weights()[0]

    z, shown, expected = jax.device_get(run(variables, keys))
    data = np.asarray(jax.random.key_data(keys))
    np.testing.assert_allclose(loaded["encode"](IMAGES, data), z, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(loaded["decode"](z), shown)
    np.testing.assert_allclose(loaded["elbo"](IMAGES, data), expected, rtol=1e-4)
    cold = np.asarray(loaded["sample"](data[:3], np.float32(0.0)))
    np.testing.assert_array_equal(cold[0], cold[1])
    assert loaded["sample"](data, np.float32(1.0)).shape == (8, *SHAPE)


@pytest.mark.parametrize("sizes", [(), (3, 0)])
def test_levels_without_latents_raise(sizes):
    with pytest.raises(ValueError, match="latent_sizes must hold numbers of at least 1"):
        jax.eval_shape(ladder(sizes).init, KEY, IMAGES)
