"""Priors over maps of codes: contexts, the loss, dropout."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.raster_networks import KEY, NETWORKS, gated, noisy
from vaeflow import losses, models, nn
from vaeflow.distributions.code_maps import truncated_logits

MAPS = jax.random.randint(KEY, (3, 3, 4), 0, 5)
LABELS = jnp.array([0, 2, 1])
TOP = jax.random.randint(KEY, (3, 2, 2), 0, 6)
FEATURES = jax.random.normal(KEY, (3, 2, 2, 2))


def above(**options):
    return nn.UpsampledConditioner((3, 4), channels=4, num_blocks=1, **options)


def prior(make=gated, blocks=1, **options):
    return models.CodePrior(make(num_blocks=blocks), **options)


CASES = {
    "nothing": ({}, None),
    "vectors": ({}, FEATURES[:, 0, 0]),
    "labels": ({"num_classes": 3}, LABELS),
    "codes above": ({"above": above(num_codes=6)}, TOP),
    "features above": ({"above": above()}, FEATURES),
    "labels and codes above": ({"num_classes": 3, "above": above(num_codes=6)}, (LABELS, TOP)),
}
"""Options of a model, and a context for them."""


def prepared(name, make=gated):
    options, context = CASES[name]
    model = prior(make, **options)
    variables = noisy(jax.jit(model.init)(KEY, MAPS, context))
    return model, variables, context


def log_prob(model, variables, context, maps=MAPS):
    return model.apply(variables, maps, None, context, method="log_prob")


@pytest.mark.parametrize("name", CASES)
def test_log_prob_is_that_of_the_distribution_and_of_its_samples(name):
    model, variables, context = prepared(name)
    found = model.apply(variables, context=context)
    assert found.batch_shape == (() if context is None else (3,))
    np.testing.assert_allclose(log_prob(model, variables, context), found.log_prob(MAPS), rtol=1e-5)
    samples, of_samples = found.sample_and_log_prob(seed=KEY)
    np.testing.assert_allclose(found.log_prob(samples), of_samples, rtol=1e-4)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_each_context_changes_only_its_map(make):
    model, variables, (labels, top) = prepared("labels and codes above", make)
    plain = log_prob(model, variables, (labels, top))
    for changed in ((labels.at[1].set(0), top), (labels, top.at[1, 1, 1].set(top[1, 1, 1] ^ 1))):
        moved = jnp.abs(log_prob(model, variables, changed) - plain)
        assert moved[1] > 1e-4
        np.testing.assert_array_equal(moved[::2], 0)


def test_contexts_and_samples_have_any_batch_axes():
    model, variables, (labels, top) = prepared("labels and codes above")
    context = (jnp.stack([labels, labels]), jnp.stack([top, top + 0]))
    samples = model.apply(variables, KEY, 2, context, top_k=3, method="sample")
    assert samples.shape == (2, 2, 3, 3, 4)
    assert samples.dtype == jnp.int32
    assert ((samples >= 0) & (samples < 5)).all()
    single = model.apply(variables, context=(labels[1], top[1])).log_prob(samples)
    every = model.apply(variables, context=context).log_prob(samples)
    np.testing.assert_allclose(single[:, :, 1], every[:, :, 1], rtol=1e-5)


def test_options_of_sampling_reach_the_distribution():
    model, variables, _ = prepared("nothing")
    options = {"temperature": 0.5, "top_k": 3, "top_p": 0.5}
    found = model.apply(variables, **options)
    whole = model.apply(variables).logits(MAPS)
    expected = truncated_logits(whole, **options)
    np.testing.assert_allclose(found.logits(MAPS), expected, rtol=1e-5)
    drawn = model.apply(variables, KEY, 4, **options, method="sample")
    np.testing.assert_array_equal(drawn, found.sample(seed=KEY, sample_shape=4))
    assert (drawn != model.apply(variables, KEY, 4, method="sample")).any()


def test_prior_starts_at_the_frequencies_of_the_first_maps():
    model = prior(num_classes=3)
    beyond = MAPS.at[0, 0, 0].set(5).at[1, 0, 0].set(-1)  # counted nowhere
    variables = model.init(KEY, beyond, LABELS)
    for label in range(3):
        drawn = model.apply(variables, None, jnp.int32(label))
        logits = drawn.logits(MAPS)
        for row, column in np.ndindex(3, 4):
            counts = np.bincount(MAPS[:, row, column], minlength=5)
            if (row, column) == (0, 0):
                counts = np.bincount(MAPS[2:, row, column], minlength=5)
            expected = np.log((counts + 0.5) / (counts.sum() + 2.5))
            found = jax.nn.log_softmax(logits[0, row, column])
            np.testing.assert_allclose(found, expected, rtol=1e-5)
    without = model.init(KEY, context=jnp.int32(1))
    assert not jnp.any(without["params"]["network"]["offset"])
    offset = {"offset": variables["params"]["network"]["offset"]}
    without["params"]["network"] |= offset
    jax.tree.map(np.testing.assert_array_equal, variables, without)


def test_maximum_likelihood_starts_at_the_bits_of_a_code():
    options, context = CASES["labels and codes above"]
    model = prior(**options)
    variables = model.init(KEY, None, context)
    batch = {"codes": MAPS, "label": LABELS, "top": TOP}

    def loss(variables):
        return losses.negative_log_likelihood(
            model, variables, batch, KEY, data="codes", context_key=("label", "top")
        )

    value, aux = jax.jit(loss)(variables)
    np.testing.assert_allclose(value, math.log(5), rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["bits_per_dim"], math.log2(5), rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["negative_log_likelihood"], 12 * math.log(5), rtol=1e-5)
    trained = noisy(variables)
    expected = -jnp.mean(log_prob(model, trained, context)) / 12
    np.testing.assert_allclose(loss(trained)[0], expected, rtol=1e-5)
    gradient = jax.jit(jax.grad(lambda variables: loss(variables)[0]))(trained)
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


def test_channels_are_dropped_only_in_training():
    model = models.CodePrior(gated(num_blocks=1, dropout=0.5))
    variables = noisy(model.init(KEY))
    batch = {"codes": MAPS}

    def nats(rng, **options):
        loss = losses.negative_log_likelihood
        return loss(model, variables, batch, rng, data="codes", **options)[0]

    exact = -log_prob(model, variables, None).mean() / 12
    np.testing.assert_array_equal(nats(KEY, train=False), exact)
    assert nats(KEY) == nats(KEY)
    assert nats(KEY) != nats(jax.random.key(1))
    assert nats(KEY) != exact


@pytest.mark.parametrize(
    ("options", "context", "message"),
    [
        ({"num_classes": 3}, None, "labels of 3 classes"),
        ({"num_classes": 3}, FEATURES, "num_classes=3"),
        ({}, LABELS, "num_classes=None"),
        ({"above": above(num_codes=6)}, None, "map above .* got None"),
        ({"above": above(num_codes=6)}, FEATURES, r"codes=6, got float32 of shape \(3, 2, 2, 2\)"),
        (
            {"num_classes": 3, "above": above(num_codes=6)},
            TOP,
            "a pair: labels and the map above",
        ),
        ({"num_classes": 3}, (LABELS, TOP), "one array .* got a tuple"),
        ({"num_classes": 3}, LABELS[:2], r"\(2, 3\) for maps of shape \(3, 3, 4\)"),
        (
            {"above": nn.UpsampledConditioner((2, 2), num_codes=6)},
            TOP,
            r"\(batch, 3, 4, feature\), got \(1, 2, 2",
        ),
    ],
)
def test_other_contexts_raise(options, context, message):
    model = prior(**options)
    with pytest.raises(ValueError, match=message):
        log_prob(model, model.init(KEY, MAPS, context), context)


def test_maps_of_other_shapes_or_dtypes_raise():
    model, variables, _ = prepared("nothing")
    with pytest.raises(ValueError, match=r"\(batch, 3, 4\), got \(3, 4, 3\)"):
        log_prob(model, variables, None, MAPS.reshape(3, 4, 3))
    with pytest.raises(ValueError, match="integers"):
        log_prob(model, variables, None, MAPS.astype(jnp.float32))
