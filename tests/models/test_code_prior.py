"""Priors over maps of codes: contexts, the loss, dropout."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from tests.raster_networks import KEY, gated, snail
from tests.variables import noisy
from vaeflow import losses, models, nn
from vaeflow.distributions.code_maps import truncated_logits

RANDOM = np.random.RandomState(0)
MAPS = RANDOM.randint(0, 5, (3, 3, 4)).astype(np.int32)
LABELS = np.array([0, 2, 1], np.int32)
TOP = RANDOM.randint(0, 6, (3, 2, 2)).astype(np.int32)
FEATURES = RANDOM.normal(size=(3, 2, 2, 2)).astype(np.float32)


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
SLOW = {"labels", "codes above"}
"""Of which the last case has both."""


@functools.cache
def prepared(name, make=gated):
    """A model, variables that are drawn rather than initialised, and a context."""
    options, context = CASES[name]
    model = prior(make, **options)
    shapes = jax.eval_shape(model.init, KEY, MAPS, context=context)
    random = np.random.RandomState(7)
    draw = lambda leaf: np.float32(random.normal(0, 0.4, leaf.shape))  # noqa: E731
    return model, jax.tree.map(draw, shapes), context


def log_prob(model, variables, context, maps=MAPS):
    return model.apply(variables, maps, None, context=context, method="log_prob")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CASES]
)
def test_log_prob_is_that_of_the_distribution_and_of_its_samples(name):
    model, variables, context = prepared(name)

    @jax.jit
    def run(variables):
        found = model.apply(variables, context=context)
        assert found.batch_shape == (() if context is None else (3,))
        samples, of_samples = found.sample_and_log_prob(seed=KEY)
        # Of these maps and of the samples at once.
        maps = jnp.stack([MAPS, jnp.broadcast_to(samples, MAPS.shape)])
        by_model = log_prob(model, variables, context)
        return by_model, found.log_prob(maps), of_samples

    by_model, (by_distribution, again), of_samples = run(variables)
    np.testing.assert_allclose(by_model, by_distribution, rtol=1e-5)
    np.testing.assert_allclose(again, np.broadcast_to(of_samples, again.shape), rtol=1e-4)


@pytest.mark.parametrize(
    "make", [gated, pytest.param(snail, marks=pytest.mark.slow)], ids=["gated", "snail"]
)
def test_each_context_changes_only_its_map(make):
    model, variables, (labels, top) = prepared("labels and codes above", make)
    other_labels, other_top = labels.copy(), top.copy()
    other_labels[1] = 0
    other_top[1, 1, 1] ^= 1
    find = jax.jit(functools.partial(log_prob, model))
    plain = np.asarray(find(variables, (labels, top)))
    for changed in ((other_labels, top), (labels, other_top)):
        moved = np.abs(np.asarray(find(variables, changed)) - plain)
        assert moved[1] > 1e-4
        np.testing.assert_array_equal(moved[::2], 0)


def test_contexts_and_samples_have_any_batch_axes():
    model, variables, (labels, top) = prepared("labels and codes above")
    context = (np.stack([labels, labels]), np.stack([top, top]))

    @jax.jit
    def run(variables):
        samples = model.apply(variables, KEY, 2, context=context, top_k=3, method="sample")
        single = model.apply(variables, context=(labels[1], top[1])).log_prob(samples)
        return samples, single, model.apply(variables, context=context).log_prob(samples)

    samples, single, every = jax.device_get(run(variables))
    assert samples.shape == (2, 2, 3, 3, 4)
    assert samples.dtype == np.int32
    assert ((samples >= 0) & (samples < 5)).all()
    np.testing.assert_allclose(single[:, :, 1], every[:, :, 1], rtol=1e-5)


@pytest.mark.slow
def test_options_of_sampling_reach_the_distribution():
    model, variables, _ = prepared("nothing")
    options = {"temperature": 0.5, "top_k": 3, "top_p": 0.5}

    @jax.jit
    def run(variables):
        found = model.apply(variables, **options)
        expected = truncated_logits(model.apply(variables).logits(MAPS), **options)
        draw = functools.partial(model.apply, variables, KEY, 4, method="sample")
        samples = draw(**options), found.sample(seed=KEY, sample_shape=4), draw()
        return found.logits(MAPS), expected, samples

    logits, expected, (drawn, same, plain) = jax.device_get(run(variables))
    np.testing.assert_allclose(logits, expected, rtol=1e-5)
    np.testing.assert_array_equal(drawn, same)
    assert (drawn != plain).any()


def test_prior_starts_at_the_frequencies_of_the_first_maps():
    model = prior(num_classes=3)
    beyond = MAPS.copy()
    beyond[:2, 0, 0] = 5, -1  # counted nowhere

    @jax.jit
    def run():
        variables = model.init(KEY, beyond, context=LABELS)
        drawn = model.apply(variables, None, context=np.arange(3))
        return variables, model.init(KEY, context=jnp.int32(1)), drawn.logits(MAPS)

    variables, without, logits = jax.device_get(run())
    logits = logits - scipy.special.logsumexp(logits, axis=-1, keepdims=True)
    for label in range(3):
        for row, column in np.ndindex(3, 4):
            counts = np.bincount(MAPS[:, row, column], minlength=5)
            if (row, column) == (0, 0):
                counts = np.bincount(MAPS[2:, row, column], minlength=5)
            expected = np.log((counts + 0.5) / (counts.sum() + 2.5))
            np.testing.assert_allclose(logits[label, row, column], expected, rtol=1e-5)
    assert not np.any(without["params"]["network"]["offset"])
    offset = {"offset": variables["params"]["network"]["offset"]}
    without["params"]["network"] |= offset
    jax.tree.map(np.testing.assert_array_equal, variables, without)


@pytest.mark.slow
def test_maximum_likelihood_starts_at_the_bits_of_a_code():
    options, context = CASES["labels and codes above"]
    model = prior(**options)
    batch = {"codes": MAPS, "label": LABELS, "top": TOP}

    def loss(variables):
        return losses.negative_log_likelihood(
            model, variables, batch, KEY, data="codes", context_key=("label", "top")
        )

    @jax.jit
    def run():
        variables = model.init(KEY, None, context=context)
        trained = noisy(variables, 0.3)
        of_trained = jax.value_and_grad(lambda variables: loss(variables)[0])(trained)
        return loss(variables), of_trained, log_prob(model, trained, context)

    (value, aux), (of_trained, gradient), densities = jax.device_get(run())
    np.testing.assert_allclose(value, math.log(5), rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["bits_per_dim"], math.log2(5), rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["negative_log_likelihood"], 12 * math.log(5), rtol=1e-5)
    np.testing.assert_allclose(of_trained, -np.mean(densities) / 12, rtol=1e-5)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


@pytest.mark.slow
def test_channels_are_dropped_only_in_training():
    model = models.CodePrior(gated(num_blocks=1, dropout=0.5))

    @jax.jit
    def run():
        variables = noisy(model.init(KEY), 0.3)

        def nats(key, **options):
            loss = losses.negative_log_likelihood
            return loss(model, variables, {"codes": MAPS}, key, data="codes", **options)[0]

        exact = -log_prob(model, variables, None).mean() / 12
        trained = [nats(KEY), nats(KEY), nats(jax.random.key(1))]
        return exact, nats(KEY, train=False), trained

    exact, evaluated, (one, same, other) = jax.device_get(run())
    np.testing.assert_allclose(evaluated, exact, rtol=1e-6)
    assert one == same
    assert abs(one - other) > 1e-4
    assert abs(one - exact) > 1e-4


@pytest.mark.parametrize(
    ("options", "context", "message"),
    [
        ({"num_classes": 3}, None, "labels of 3 classes"),
        ({"num_classes": 3}, FEATURES, "integer labels of 3 classes, got float32"),
        ({}, LABELS, "floats of shape .* got int32"),
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
        jax.eval_shape(lambda: log_prob(model, model.init(KEY, MAPS, context=context), context))


def test_maps_of_other_shapes_or_dtypes_raise():
    model, variables, _ = prepared("nothing")
    with pytest.raises(ValueError, match=r"\(batch, 3, 4\), got \(3, 4, 3\)"):
        log_prob(model, variables, None, MAPS.reshape(3, 4, 3))
    with pytest.raises(ValueError, match="integers"):
        log_prob(model, variables, None, MAPS.astype(np.float32))
