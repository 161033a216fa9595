"""VAEs and auto-encoders with every posterior, prior, likelihood and network."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import linear_gaussian as exact
from vaeflow import bases, decoders, encoders, estimators, flows, losses, metrics, models, sharing

KEY = jax.random.key(0)
SHAPE = (6, 5, 2)
IMAGES = np.random.RandomState(0).randint(0, 256, (8, *SHAPE)).astype(np.uint8)
LATENTS = 3
DIAGONAL = encoders.DiagonalGaussianPosterior(LATENTS)

POSTERIORS = {
    "diagonal": DIAGONAL,
    "full": encoders.FullGaussianPosterior(LATENTS),
    "planar": encoders.FlowPosterior(DIAGONAL, flows.PlanarFlow((LATENTS,), num_steps=2)),
    "shared-flow": encoders.FlowPosterior(
        DIAGONAL, flows.NICE((LATENTS,), num_steps=2, hidden_sizes=(4,)), amortised=False
    ),
    "grouped": encoders.GroupedPosterior(
        {"style": encoders.DiagonalGaussianPosterior(1), "digit": encoders.ConcretePosterior(2)}
    ),
}
PRIORS = {
    "standard": None,
    "mixture": bases.GaussianMixtureBase((LATENTS,), num_components=4),
    "vamp": bases.VampPrior(num_components=5, image_shape=SHAPE),
    "flow": models.FlowModel(
        flows.RealNVP((LATENTS,), num_steps=2, hidden_features=4, num_blocks=1)
    ),
}
LIKELIHOODS = {
    "bernoulli": (decoders.BernoulliLikelihood(), models.Binarizer()),
    "continuous-bernoulli": (decoders.ContinuousBernoulliLikelihood(), models.UniformDequantizer()),
    "gaussian": (decoders.GaussianLikelihood(), models.UniformDequantizer()),
    "gaussian-shared": (decoders.GaussianLikelihood(shared=True), models.UniformDequantizer()),
    "logistic": (decoders.DiscretizedLogisticMixtureLikelihood(bits=5), models.Discretizer(5)),
    "logistic-mixture": (
        decoders.DiscretizedLogisticMixtureLikelihood(num_components=3, bits=5),
        models.Discretizer(5),
    ),
    "categorical": (decoders.CategoricalLikelihood(3), models.Discretizer(3)),
}
NETWORKS = {
    "dense": (encoders.DenseEncoder((8,)), decoders.DenseDecoder((8,))),
    "convolutional": (
        encoders.ConvolutionalEncoder((4, 4), 8),
        decoders.ConvolutionalDecoder((4, 4)),
    ),
    "residual": (
        encoders.ResidualEncoder((4,), num_blocks=1, features=8),
        decoders.ResidualDecoder((4,), num_blocks=1),
    ),
    "gated": (encoders.GatedEncoder(2), decoders.GatedDecoder(2)),
}


def vae(posterior="diagonal", prior="standard", likelihood="bernoulli", network="dense", **more):
    encoder, decoder = NETWORKS[network]
    head, observation = LIKELIHOODS[likelihood]
    return models.VAE(
        encoders.Encoder(encoder, POSTERIORS[posterior]),
        decoders.Decoder(decoder, head, SHAPE),
        observation,
        PRIORS[prior],
        **more,
    )


CASES = [
    *({"posterior": name} for name in POSTERIORS),
    *({"prior": name} for name in list(PRIORS)[1:]),
    *({"likelihood": name} for name in list(LIKELIHOODS)[1:]),
    *({"network": name} for name in list(NETWORKS)[1:]),
]


SLOW = {
    "diagonal",
    "full",
    "gated",
    "grouped",
    "logistic-mixture",
    "shared-flow",
    "mixture",
    "continuous-bernoulli",
    "gaussian-shared",
    "logistic",
    "residual",
}
"""Parts that others are like, and that have tests of their own."""


def named(name, value):
    return pytest.param(value, id=name, marks=[pytest.mark.slow] if name in SLOW else [])


@pytest.mark.parametrize("case", [named(*case.values(), case) for case in CASES])
def test_every_part_trains_and_samples(case):
    model = vae(**case)

    @jax.jit
    def run(images):
        variables = model.init(KEY, images)
        (loss, aux), gradient = jax.value_and_grad(
            lambda variables: losses.elbo(model, variables, {"image": images}, KEY), has_aux=True
        )(variables)
        drawn = model.apply(variables, KEY, 4, method="sample")
        values = model.apply(variables, images, KEY, method="observe").values
        posterior = model.apply(variables, values, method="posterior")
        prior = model.apply(variables, method="prior")
        assert posterior.batch_shape == (8,)
        assert prior.batch_shape == ()
        assert posterior.event_shape == prior.event_shape == (LATENTS,)
        encoded = model.apply(variables, images, KEY, method="encode")
        assert encoded.shape == (8, LATENTS)
        return loss, aux.metrics, gradient, drawn

    loss, metrics, gradient, drawn = jax.device_get(run(IMAGES))
    assert np.isfinite(loss)
    assert all(value.shape == () for value in metrics.values())
    leaves = jax.tree.leaves_with_path(gradient)
    assert all(np.all(np.isfinite(leaf)) for _, leaf in leaves)
    # A bound of the images, so far from learned, isn't far from that of independent entries.
    assert 0 < float(metrics["bits_per_dim"]) < 30
    assert drawn.shape == (4, *SHAPE)
    assert drawn.dtype == np.uint8


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_before_training_the_likelihood_is_that_of_the_first_batch(likelihood):
    model = vae(likelihood=likelihood)
    images = np.repeat(IMAGES, 50, axis=0)  # so that it matters little what is drawn of them

    @jax.jit
    def run(images):
        variables = model.init(KEY, images)
        values = model.apply(variables, images, KEY, method="observe").values
        return values, model.apply(variables, jnp.zeros((LATENTS,)), method="likelihood").mean()

    values, mean = jax.device_get(run(images))
    # Entries of a categorical share their frequencies.
    expected = values.mean() if likelihood == "categorical" else values.mean(axis=0)
    # The dense network adds little at zero; a mixture's means are spread about the data's.
    np.testing.assert_allclose(mean, np.broadcast_to(expected, SHAPE), atol=0.2)
    assert np.abs(mean - expected).mean() < 0.06


@functools.cache
def of_posterior(posterior):
    """Evidence of a batch and of half of it, and densities of what is inferred."""
    model = vae(posterior=posterior)

    @jax.jit
    def compute(images):
        variables = model.init(KEY, images)
        keys = jax.random.split(KEY, 8)
        find = functools.partial(estimators.evidence, model, variables, num_samples=3)
        evidence = find({"image": images}, keys), find({"image": images[4:]}, keys[4:])
        values = model.apply(variables, images, KEY, method="observe").values
        latents = model.apply(variables, values, KEY, 2, method="infer")
        densities = {
            "q": model.apply(variables, values, method="posterior").log_prob(latents.z),
            "p": model.apply(variables, method="prior").log_prob(latents.z),
            "of samples": sum(latents.log_q.values()),
            "ratio": latents.log_ratio(),
        }
        return [(each.latents.z, each.log_weights()) for each in evidence], densities

    return jax.device_get(compute(IMAGES))


@pytest.mark.parametrize("posterior", [named(name, name) for name in POSTERIORS])
def test_noise_of_a_row_depends_only_on_its_key(posterior):
    (whole, of_whole), (part, of_part) = of_posterior(posterior)[0]
    np.testing.assert_allclose(part, whole[:, 4:], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(of_part, of_whole[:, 4:], rtol=1e-4)
    assert whole.shape == (3, 8, LATENTS)
    assert np.abs(whole[0] - whole[1]).max() > 0.01


@pytest.mark.parametrize("posterior", [named(name, name) for name in POSTERIORS])
def test_densities_of_samples_are_those_of_the_posterior(posterior):
    found = of_posterior(posterior)[1]
    np.testing.assert_allclose(found["of samples"], found["q"], rtol=1e-3, atol=1e-3)
    expected = found["p"] - found["of samples"]
    np.testing.assert_allclose(found["ratio"], expected, rtol=1e-3, atol=1e-3)


def test_pseudo_inputs_mix_their_posteriors():
    model = vae(prior="vamp")
    z = np.random.RandomState(1).normal(size=(4, LATENTS)).astype(np.float32)

    @jax.jit
    def run(images):
        variables = model.init(KEY, images)
        inputs = variables["params"]["prior_model"]["inputs"]
        each = model.apply(variables, inputs, method="posterior").log_prob(z[:, None])
        expected = jax.nn.logsumexp(each, axis=-1) - np.log(5)
        return variables, inputs, expected, model.apply(variables, method="prior").log_prob(z)

    variables, inputs, expected, found = run(IMAGES)
    assert np.abs(inputs - np.round(inputs)).max() < 0.1  # they start as binary images
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert inputs.shape == (5, *SHAPE)
    with pytest.raises(ValueError, match=r"temperature=0\.5"):
        model.apply(variables, temperature=0.5, method="prior")


def test_pseudo_inputs_of_one_image_differ():
    init = jax.jit(lambda: vae(prior="vamp").init(KEY, IMAGES[:2])["params"]["prior_model"])
    inputs = np.asarray(init()["inputs"])
    difference = np.abs(inputs[0] - inputs[2])  # both are of the first image
    assert 0 < difference.max() < 0.1


@pytest.mark.parametrize("prior", ["standard", "mixture", "flow"])
def test_temperature_is_a_factor_of_the_deviations_of_the_noise(prior):
    model = vae(prior=prior)

    @jax.jit
    def run(images):
        variables = model.init(KEY, images)
        draw = lambda temperature: model.apply(  # noqa: E731
            variables, temperature=temperature, method="prior"
        ).sample(seed=KEY, sample_shape=4000)
        return draw(1e-6), draw(1.0)

    cold, warm = jax.device_get(run(IMAGES))
    if prior == "mixture":  # of each component; their means are left
        assert len(np.unique(np.round(cold, 3), axis=0)) == 4
    else:
        assert cold.std(0).max() < 1e-4
    assert warm.std(0).min() > 0.1


def test_a_flow_as_prior_starts_from_the_first_posteriors():
    flow = flows.MaskedAutoregressiveFlow((exact.LATENTS,), num_steps=1, hidden_sizes=(4,))
    model = exact.model(encoders.DiagonalGaussianPosterior(exact.LATENTS), models.FlowModel(flow))
    images = 100 * np.random.RandomState(4).normal(size=(64, *exact.SHAPE)).astype(np.float32)

    @jax.jit
    def run(images):
        variables = model.init(KEY, images)
        prior = model.apply(variables, method="prior")
        means = model.apply(variables, images, KEY, method="encode")
        return means, prior.sample(seed=KEY, sample_shape=4000)

    means, drawn = jax.device_get(run(images))
    assert means.std(0).min() > 20
    # Noise that is standard would be left as it is; the posteriors' own deviations come on top.
    ratio = drawn.std(0) / means.std(0)
    assert ratio.min() > 0.5
    assert ratio.max() < 3


@pytest.mark.parametrize("posterior", ["diagonal", "planar"])
def test_encoding_maps_the_base_mean_through_the_flow(posterior):
    model = vae(posterior=posterior)

    @jax.jit
    def run(images):
        variables = jax.tree.map(lambda leaf: leaf + 0.2, model.init(KEY, images))
        z = model.apply(variables, images, KEY, method="encode")
        values = model.apply(variables, images, KEY, method="observe").values
        found = model.apply(variables, values, method="posterior")
        if posterior == "planar":
            mean = found.distribution.mean()
            return z, mean, found.bijector.forward(mean)
        return z, None, found.mean()

    z, mean, expected = jax.device_get(run(IMAGES))
    if posterior == "planar":
        assert np.abs(z - mean).max() > 1e-2
        np.testing.assert_allclose(z, expected, rtol=1e-4, atol=1e-5)
    else:
        np.testing.assert_allclose(z, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "prior",
    [
        pytest.param(None, id="standard"),
        pytest.param(
            bases.LabelledGaussianBase((LATENTS,), num_classes=3),
            id="labelled",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            models.FlowModel(flows.NICE((LATENTS,), num_steps=1, hidden_sizes=(4,))),
            id="flow",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            models.FlowModel(
                flows.NICE((LATENTS,), num_steps=1, hidden_sizes=(4,)),
                base=bases.LabelledGaussianBase((LATENTS,), num_classes=3),
            ),
            id="flow-of-labelled",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_labels_reach_all_three_distributions(prior):
    model = models.VAE(
        encoders.Encoder(NETWORKS["dense"][0], DIAGONAL),
        decoders.Decoder(NETWORKS["dense"][1], decoders.BernoulliLikelihood(), SHAPE),
        models.Binarizer(),
        prior,
        num_classes=3,
    )
    labels, by_label = np.arange(8) % 3, []

    @jax.jit
    def run(images):
        variables = model.init(KEY, images, context=labels)
        values = model.apply(variables, images, KEY, method="observe").values
        z = jnp.zeros((8, LATENTS))
        distribution = model.apply(variables, context=labels, method="prior")
        by_label.append(bool(distribution.batch_shape))

        def of_labels(labels):
            estimate = metrics.importance_weighted_log_likelihood
            return {
                "mean": model.apply(variables, values, context=labels, method="posterior").mean(),
                "shown": model.apply(variables, z, context=labels, method="likelihood").mean(),
                "estimate": estimate(
                    model, variables, images, KEY, num_samples=2, chunk=1, context=labels
                ),
            }

        batch = {"image": images, "label": labels}
        some = (functools.partial(losses.importance_weighted, num_samples=2), losses.info_vae)
        finite = [loss(model, variables, batch, KEY, context_key="label")[0] for loss in some]
        drawn = model.apply(variables, KEY, 2, context=labels, method="sample")
        found = jax.vmap(of_labels)(np.stack([labels, (labels + 1) % 3]))
        return found, distribution.log_prob(z), drawn, finite

    found, densities, drawn, finite = jax.device_get(run(IMAGES))
    assert np.abs(found["mean"][0] - found["mean"][1]).max() > 1e-3
    assert np.abs(found["shown"][0] - found["shown"][1]).max() > 1e-3
    if by_label[0]:
        assert prior is not None
        np.testing.assert_allclose(densities[0], densities[3], rtol=1e-6)
        assert abs(densities[0] - densities[1]) > 1e-3
    assert drawn.shape == (2, 8, *SHAPE)
    assert np.abs(found["estimate"][0] - found["estimate"][1]).min() > 1e-4
    assert np.all(np.isfinite(finite))
    with pytest.raises(ValueError, match=r"labels of 3 classes are needed, .* got None"):
        jax.eval_shape(
            lambda: losses.elbo(
                model,
                model.init(KEY, IMAGES, context=labels),
                {"image": IMAGES, "label": labels},
                KEY,
            )
        )


def test_auto_encoder_reconstructs_its_input():
    # Linear, with as many latents as entries: the identity can be learned, and here is set.
    head = decoders.GaussianLikelihood(exact.NOISE)
    model = models.AutoEncoder(
        encoders.DenseEncoder(hidden_sizes=()),
        exact.SIZE,
        decoders.Decoder(decoders.DenseDecoder(hidden_sizes=()), head, exact.SHAPE),
        exact.Observed(),
    )

    @jax.jit
    def run():
        variables = model.init(KEY, exact.DATA)
        identity = jnp.eye(exact.SIZE)
        params = variables["params"]
        params["latent"]["kernel"] = identity
        params["decoder"]["network"]["Dense_0"]["kernel"] = identity
        params["decoder"]["offset"] = jnp.zeros_like(params["decoder"]["offset"])
        z = model.apply(variables, exact.DATA, KEY, method="encode")
        loss = losses.reconstruction(model, variables, exact.BATCH, KEY)
        return loss, z, model.apply(variables, z, method="decode")

    (loss, aux), z, decoded = jax.device_get(run())
    perfect = exact.SIZE * np.log(exact.NOISE * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(loss, perfect, rtol=1e-5)
    bits = aux.metrics["reconstruction_per_dim"]
    np.testing.assert_allclose(bits, loss / 4 / np.log(2), rtol=1e-6)
    np.testing.assert_allclose(z, exact.DATA.reshape(3, -1), rtol=1e-6)
    np.testing.assert_allclose(decoded, exact.DATA, rtol=1e-5)


def test_an_auto_encoder_starts_from_the_first_batch():
    model = models.AutoEncoder(
        NETWORKS["dense"][0],
        3,
        decoders.Decoder(NETWORKS["dense"][1], decoders.BernoulliLikelihood(), SHAPE),
        models.Binarizer(),
    )

    @jax.jit
    def run(images):
        values = model.observation(images, jax.random.split(KEY, 8)).values
        variables = model.init(KEY, values)
        observed = [
            model.apply(variables, images, jax.random.key(seed), method="observe").values
            for seed in (0, 1)
        ]
        # Of images that are black and white already, by values and as they are.
        black_and_white = jnp.where(images > 127, 255, 0).astype(jnp.uint8)
        given = (values, black_and_white / 255.0, black_and_white)
        offsets = [model.init(KEY, each)["params"]["decoder"]["offset"] for each in given]
        expected = decoders.BernoulliLikelihood().initial(values)
        return offsets, expected, observed

    (found, plain, seen), expected, (one, other) = jax.device_get(run(IMAGES))
    np.testing.assert_allclose(found[..., 0], expected[..., 0], rtol=1e-5)
    np.testing.assert_allclose(seen, plain, rtol=1e-5)
    assert np.any(one != other)


def test_an_exported_model_is_the_model(tmp_path):
    model = vae()
    variables = jax.jit(model.init)(KEY, IMAGES)
    functions = sharing.export_functions(model)
    sharing.save_exported(tmp_path / "file", functions, variables, {})
    loaded = sharing.load_exported(tmp_path / "file")
    keys = jax.random.split(jax.random.key(5, impl="threefry2x32"), 8)

    @jax.jit
    def run(variables, keys):
        z = model.apply(variables, IMAGES, keys, method="encode")
        evidence = estimators.evidence(model, variables, {"image": IMAGES}, keys)
        shown, cold = (model.apply(variables, each, method="decode") for each in (z, 0 * z))
        return z, shown, cold, evidence.log_weights()[0]

    z, shown, cold, expected = jax.device_get(run(variables, keys))
    data = np.asarray(jax.random.key_data(keys))
    np.testing.assert_array_equal(loaded["sample"](data, np.float32(0)), cold)
    np.testing.assert_allclose(loaded["encode"](IMAGES, data), z, rtol=1e-4, atol=1e-5)
    for count in (2, 8):
        np.testing.assert_array_equal(loaded["decode"](z[:count]), shown[:count])
    np.testing.assert_allclose(loaded["elbo"](IMAGES, data), expected, rtol=1e-4)
    assert loaded["sample"](data, np.float32(0.7)).shape == (8, *SHAPE)


@pytest.mark.parametrize("prior", [None, bases.LabelledGaussianBase((LATENTS,), num_classes=3)])
@pytest.mark.slow
def test_an_exported_model_takes_labels_where_it_has_classes(prior, tmp_path):
    model = models.VAE(
        encoders.Encoder(NETWORKS["dense"][0], DIAGONAL),
        decoders.Decoder(NETWORKS["dense"][1], decoders.BernoulliLikelihood(), SHAPE),
        models.Binarizer(),
        prior,
        num_classes=3,
    )
    labels = np.arange(8, dtype=np.int32) % 3
    variables = jax.jit(model.init)(KEY, IMAGES, context=labels)
    sharing.save_exported(tmp_path / "file", sharing.export_functions(model), variables, {})
    loaded = sharing.load_exported(tmp_path / "file")
    keys = jax.random.split(jax.random.key(5, impl="threefry2x32"), 8)

    @jax.jit
    def run(variables, keys):
        z = model.apply(variables, IMAGES, keys, context=labels, method="encode")
        batch = {"image": IMAGES, "label": labels}
        evidence = estimators.evidence(model, variables, batch, keys, context_key="label")
        mean = jnp.broadcast_to(
            model.apply(variables, context=labels, method="prior").mean(), z.shape
        )
        shown, cold = (
            model.apply(variables, each, context=labels, method="decode") for each in (z, mean)
        )
        return z, shown, cold, evidence.log_weights()[0]

    z, shown, cold, expected = jax.device_get(run(variables, keys))
    data = np.asarray(jax.random.key_data(keys))
    np.testing.assert_allclose(loaded["encode"](IMAGES, data, labels), z, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(loaded["decode"](z, labels), shown)
    np.testing.assert_allclose(loaded["elbo"](IMAGES, data, labels), expected, rtol=1e-4)
    np.testing.assert_array_equal(loaded["sample"](data, np.float32(0), labels), cold)


def test_binarizer_and_discretizer():
    image = np.array([0, 64, 255], np.uint8).reshape(1, 1, 3, 1)
    binarize = jax.jit(
        lambda images: models.Binarizer()(images, jax.random.split(KEY, len(images)))
    )
    drawn = binarize(np.repeat(image, 2000, axis=0))
    share = np.asarray(drawn.values).mean(axis=0).ravel()
    np.testing.assert_allclose(share[1], 64 / 255, atol=0.04)
    np.testing.assert_array_equal(share[[0, 2]], [0, 1])  # these are sure
    np.testing.assert_array_equal(drawn.log_det, np.zeros(2000))
    quantize = jax.jit(models.Binarizer().quantize)
    np.testing.assert_array_equal(quantize(np.float32(image / 255)), image)
    shown = quantize(np.array([-0.2, 0.9 / 255, 1.3], np.float32).reshape(1, 1, 3, 1))
    np.testing.assert_array_equal(np.ravel(shown), [0, 1, 255])
    levels = models.Discretizer(2)

    @jax.jit
    def run(image):
        values = levels(image, None).values
        return values, levels.quantize(values)

    values, again = run(image)
    np.testing.assert_allclose(np.ravel(values), [-0.375, -0.125, 0.375])
    np.testing.assert_array_equal(np.ravel(again), [0, 64, 192])
    with pytest.raises(ValueError, match="images must be uint8"):
        models.Binarizer()(image / 255.0, jax.random.split(KEY, 1))


def test_mismatched_shapes_raise():
    model = vae()

    def decode(context):
        params = model.init(KEY, IMAGES)["params"]["decoder"]
        return model.decoder.apply({"params": params}, jnp.zeros((4, LATENTS)), context=context)

    with pytest.raises(ValueError, match=r"\(3, 2\).*\(4, 3\)"):
        jax.eval_shape(decode, np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match=r"base's 3 latents, got noise of shape \(5,\)"):
        encoders.FlowPosterior(DIAGONAL, flows.PlanarFlow((5,), num_steps=1))
    head = decoders.GaussianLikelihood(0.0)
    with pytest.raises(ValueError, match=r"scale must be above 0, got 0\.0"):
        jax.eval_shape(head.init, KEY, np.zeros((*SHAPE, 1), np.float32))


def test_the_usual_vae_is_the_one_that_its_parts_make():
    parts = models.VAE(
        encoders.Encoder(encoders.DenseEncoder((5, 3)), encoders.DiagonalGaussianPosterior(2)),
        decoders.Decoder(decoders.DenseDecoder((3, 5)), decoders.BernoulliLikelihood(), (4, 4, 1)),
        models.Binarizer(),
    )
    assert models.dense_vae((4, 4, 1), 2, hidden_sizes=(5, 3)) == parts
    assert models.dense_vae([4, 4, 1], num_latents=2).encoder.network.hidden_sizes == (200, 200)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((4, 4), 2), r"image_shape must be \(height, width, channel\), got \(4, 4\)"),
        (((4, 0, 1), 2), "image_shape must be an integer of at least 1, got 0"),
        (((4, 4, 1), 0), "num_latents must be an integer of at least 1, got 0"),
        (((4, 4, 1), 2, (3.5,)), "hidden_sizes must be an integer of at least 1, got 3.5"),
    ],
)
def test_the_usual_vae_has_sizes(arguments, message):
    shape, latents, *sizes = arguments
    with pytest.raises(ValueError, match=message):
        models.dense_vae(shape, latents, **({"hidden_sizes": sizes[0]} if sizes else {}))
