"""Arguments of models and losses that are of another kind, or out of range, are named."""

from __future__ import annotations

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import linear_gaussian as exact
from tests.models.test_code_prior import MAPS, prior
from vaeflow import bases, decoders, encoders, flows, losses, models

KEY = jax.random.key(0)
OLD_KEY = jax.random.PRNGKey(0)
FLOW = models.FlowModel(flows.RealNVP((3,), num_steps=1, hidden_features=2, num_blocks=1))
DATA = np.random.RandomState(0).normal(size=(4, 3))


@pytest.fixture(autouse=True)
def no_warnings():
    """No call warns, from inside of JAX or elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def labelled(kind="vae"):
    """A model of images that takes labels."""
    decoder = decoders.Decoder(
        decoders.DenseDecoder(hidden_sizes=()), decoders.GaussianLikelihood(1.0), exact.SHAPE
    )
    network = encoders.DenseEncoder(hidden_sizes=())
    if kind == "vae":
        encoder = encoders.Encoder(network, encoders.DiagonalGaussianPosterior(2))
        base = bases.LabelledGaussianBase((2,), num_classes=3)
        return models.VAE(encoder, decoder, exact.Observed(), base, num_classes=3)
    return models.HierarchicalVAE(
        network, (2, 2), decoder, exact.Observed(), hidden_sizes=(2,), num_classes=3
    )


def shapes(model, *arguments, **keywords):
    """Variables, as shapes alone."""
    return jax.eval_shape(functools.partial(model.init, **keywords), KEY, *arguments)


def traced(model, method, *arguments, **keywords):
    """Traces a method, given variables as shapes."""
    return lambda variables: jax.eval_shape(
        lambda v: model.apply(v, *arguments, **keywords, method=method), variables
    )


def one_sentence(caught) -> None:
    """Checks that an error is a ValueError of a short message."""
    assert type(caught.value) is ValueError
    text = str(caught.value).split("\n-----")[0]
    assert "\n" not in text
    assert len(text) < 250


def test_lists_and_float64_are_data_like_others():
    @jax.jit
    def densities_and_loss():
        variables = FLOW.init(KEY, DATA.tolist())
        batch = {"vector": DATA.tolist()}
        loss, _ = losses.negative_log_likelihood(FLOW, variables, batch, KEY, data="vector")
        kinds = (DATA.astype(np.float32), DATA, DATA.tolist(), np.zeros((0, 3)))
        return [FLOW.apply(variables, given, method="log_prob") for given in kinds], loss

    (expected, *found, empty), loss = jax.device_get(densities_and_loss())
    np.testing.assert_allclose(found, [expected, expected], rtol=1e-6)
    np.testing.assert_allclose(loss, -np.mean(expected) / 3, rtol=1e-5)
    assert empty.shape == (0,)
    jax.eval_shape(lambda: FLOW.init(KEY, DATA))


@pytest.mark.parametrize("rng", [OLD_KEY, [1, 2], None, 3])
def test_keys_of_another_kind_raise(rng):
    vae, prior_of_codes = exact.model(), prior()
    of_vae = shapes(vae, exact.DATA)
    of_flow, of_codes = shapes(FLOW, DATA), shapes(prior_of_codes, MAPS)
    calls = [
        (traced(FLOW, "sample", rng, 2), of_flow),
        (traced(vae, "sample", rng, 2), of_vae),
        (traced(vae, "encode", exact.DATA, rng), of_vae),
        (traced(vae, "infer", exact.DATA, rng), of_vae),
        (traced(prior_of_codes, "sample", rng, 2), of_codes),
        (lambda v: jax.eval_shape(lambda v: losses.elbo(vae, v, exact.BATCH, rng), v), of_vae),
    ]
    for call, variables in calls:
        with pytest.raises(ValueError, match="rng must be typed keys") as caught:
            call(variables)
        one_sentence(caught)


def test_methods_of_unbound_modules_say_how_they_are_called():
    vae = exact.model()
    calls = [
        lambda: FLOW.log_prob(DATA),
        lambda: FLOW.sample(KEY, 2),
        lambda: FLOW(),
        lambda: FLOW.flow(),
        lambda: bases.DiagonalGaussianBase((3,))(),
        lambda: vae.posterior(exact.DATA),
        lambda: vae.sample(KEY, 2),
        lambda: labelled("ladder").infer(exact.DATA, KEY),
        lambda: prior().log_prob(MAPS),
        lambda: flows.BoundedFlow(FLOW.flow, 0, 1)(),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"must be called as model\.apply") as caught:
            call()
        one_sentence(caught)


def test_entries_that_a_batch_lacks_are_named():
    vae = exact.model()
    variables = shapes(vae, exact.DATA)
    batch = {"index": np.arange(3)}

    def run(loss, model, variables, batch, **options):
        jax.eval_shape(lambda v: loss(model, v, batch, KEY, **options), variables)

    images = {"image": exact.DATA}
    of_flow = shapes(FLOW, DATA)
    calls = [
        (losses.elbo, vae, variables, batch, {}, "image"),
        (losses.importance_weighted, vae, variables, batch, {}, "image"),
        (losses.hfvae, vae, variables, images, {"dataset_size": 3}, "index"),
        (losses.elbo, vae, variables, images, {"context_key": "label"}, "label"),
        (losses.negative_log_likelihood, FLOW, of_flow, images, {"data": "vector"}, "vector"),
    ]
    for loss, model, own, given, options, name in calls:
        with pytest.raises(ValueError, match=f"batch must hold '{name}', got") as caught:
            run(loss, model, own, given, **options)
        one_sentence(caught)


@pytest.mark.parametrize("kind", ["vae", "ladder"])
def test_labels_of_images_are_checked_before_anything_else(kind):
    model = labelled(kind)
    images, labels = np.zeros((8, *exact.SHAPE), np.float32), np.arange(8) % 3
    variables = shapes(model, images, context=labels)
    wrong = {
        "None": None,
        "-1": np.array([0, -1, *labels[2:]]),
        "3": np.array([3, *labels[1:]]),
        "99": np.array([99, *labels[1:]]),
        r"shape \(7,\)": labels[:7],
        r"shape \(8, 1\)": labels[:, None],
        r"float32 of shape \(8,\)": labels.astype(np.float32),
        "a dict": {},
    }
    for got, context in wrong.items():
        calls = [
            lambda context=context: shapes(model, images, context=context),
            lambda context=context: traced(model, "encode", images, KEY, context=context)(
                variables
            ),
            lambda context=context: traced(model, "infer", images, KEY, context=context)(variables),
        ]
        if "shape" not in got and got != "None":
            calls.append(
                lambda context=context: traced(model, "sample", KEY, 2, context=context)(variables)
            )
        for call in calls:
            with pytest.raises(ValueError, match=f"context.* got .*{got}") as caught:
                call()
            one_sentence(caught)
    without = exact.model()
    with pytest.raises(ValueError, match=r"context must be None .* got int64 of|int32 of"):
        traced(without, "encode", exact.DATA, KEY, context=labels[:3])(shapes(without, exact.DATA))


@pytest.mark.parametrize("kind", ["vae", pytest.param("ladder", marks=pytest.mark.slow)])
def test_labels_of_no_class_make_terms_of_their_rows_nan(kind):
    model = labelled(kind)
    images, labels = np.zeros((4, *exact.SHAPE), np.float32), np.array([0, 3, 2, -1])

    @jax.jit
    def run(labels):
        variables = model.init(KEY, images, context=np.arange(4) % 3)
        latents = model.apply(variables, images, KEY, context=labels, method="infer")
        likelihood = model.apply(variables, latents.z, context=labels, method="likelihood")
        return latents.log_q, latents.log_p, latents.kl, likelihood.log_prob(images)

    for values in jax.tree.leaves(jax.device_get(run(labels))):
        rows = values if values.shape[0] == 4 else values[0]
        np.testing.assert_array_equal(
            np.isnan(rows).reshape(4, -1).any(axis=1), [False, True, False, True]
        )


def test_numbers_out_of_range_are_named():
    vae = exact.model(encoders.DiagonalGaussianPosterior(2))
    variables = shapes(vae, exact.DATA)
    of_flow = shapes(FLOW, DATA)

    def of_loss(loss, **options):
        return lambda: jax.eval_shape(
            lambda v: loss(vae, v, exact.BATCH, KEY, **options), variables
        )

    calls = {
        "num_samples": [
            of_loss(losses.importance_weighted, num_samples=0),
            of_loss(losses.sticking_the_landing, num_samples=-1),
            lambda: traced(FLOW, "sample", KEY, -1)(of_flow),
            lambda: traced(FLOW, "sample", KEY, 1.5)(of_flow),
            lambda: traced(vae, "infer", exact.DATA, KEY, 0)(variables),
        ],
        "free_bits": [of_loss(losses.elbo, free_bits=-1.0)],
        "capacity": [of_loss(losses.elbo, capacity=np.nan)],
        "beta": [
            of_loss(losses.elbo, beta=-1.0),
            of_loss(losses.beta_tcvae, beta=-1.0, dataset_size=3),
        ],
        "gamma": [of_loss(losses.hfvae, gamma=np.inf, dataset_size=3)],
        "off_diagonal": [of_loss(losses.dip_vae, off_diagonal=-1.0)],
        "weight": [of_loss(losses.info_vae, weight=-1.0)],
        "temperature": [
            lambda: traced(FLOW, "sample", KEY, 2, temperature=-1.0)(of_flow),
            lambda: traced(vae, "prior", temperature=np.nan)(variables),
        ],
        "num_latents": [
            lambda: encoders.PointMassPosterior(0),
            lambda: encoders.DiagonalGaussianPosterior(-1),
        ],
        "num_steps": [lambda: flows.PlanarFlow((3,), num_steps=0).init(KEY)],
        "hidden_sizes": [lambda: flows.NICE((3,), hidden_sizes=(4, 0)).init(KEY)],
        "num_components": [lambda: bases.GaussianMixtureBase((2,), num_components=0).init(KEY)],
        "num_classes": [lambda: flows.PlanarFlow((3,), num_classes=0).init(KEY, context=[0])],
        "event_shape": [lambda: flows.PlanarFlow((0,)).init(KEY)],
    }
    for name, found in calls.items():
        for call in found:
            with pytest.raises(ValueError, match=name) as caught:
                call()
            one_sentence(caught)


def test_a_traced_weight_out_of_range_makes_the_loss_nan():
    vae = exact.model(encoders.DiagonalGaussianPosterior(2))
    variables = exact.diagonal_variables()
    loss = jax.jit(lambda given: losses.elbo(vae, variables, exact.BATCH, KEY, free_bits=given)[0])
    assert np.isfinite(loss(0.1))
    assert np.isnan(loss(-0.1))


def test_empty_batches_have_empty_terms():
    vae = exact.model(encoders.DiagonalGaussianPosterior(2))
    images = jnp.zeros((0, *exact.SHAPE))

    def run(variables):
        latents = vae.apply(variables, images, KEY, method="infer")
        likelihood = vae.apply(variables, latents.z, method="likelihood")
        return (
            latents.log_q,
            likelihood.log_prob(images),
            vae.apply(variables, images, KEY, method="encode"),
        )

    log_q, log_likelihood, means = jax.eval_shape(run, exact.diagonal_variables())
    assert [one.shape for one in log_q.values()] == [log_likelihood.shape] == [(1, 0)]
    assert means.shape == (0, 2)
    assert vae.apply(exact.diagonal_variables(), KEY, 0, method="sample").shape == (0, *exact.SHAPE)
