"""Parts of models that don't fit each other are refused when the model is made."""

from __future__ import annotations

import itertools

import pytest

from vaeflow import bases, decoders, encoders, flows, models, nn, quantizers

SHAPE = (4, 4, 1)
PREPROCESSORS = {
    "binarizer": models.Binarizer(),
    "discretizer": models.Discretizer(),
    "discretizer of 3 bits": models.Discretizer(3),
    "discretizer of 1 bit": models.Discretizer(1),
    "uniform": models.UniformDequantizer(),
    "uniform of 3 bits": models.UniformDequantizer(3),
    "variational": models.VariationalDequantizer(
        flows.Glow(SHAPE, num_levels=1, num_steps=1, context_ndims=3)
    ),
}
LIKELIHOODS = {
    "bernoulli": decoders.BernoulliLikelihood(),
    "continuous bernoulli": decoders.ContinuousBernoulliLikelihood(),
    "gaussian": decoders.GaussianLikelihood(),
    "gaussian of a fixed scale": decoders.GaussianLikelihood(0.1),
    "logistics": decoders.DiscretizedLogisticMixtureLikelihood(),
    "logistics of 3 bits": decoders.DiscretizedLogisticMixtureLikelihood(2, 3),
    "categorical": decoders.CategoricalLikelihood(),
    "categorical of 1 bit": decoders.CategoricalLikelihood(1),
    "categorical of 3 bits": decoders.CategoricalLikelihood(3),
}
DENSITIES = {"continuous bernoulli", "gaussian", "gaussian of a fixed scale"}
RIGHT = {
    "binarizer": {"bernoulli"},
    "discretizer": {"logistics", "categorical"},
    "discretizer of 3 bits": {"logistics of 3 bits", "categorical of 3 bits"},
    "discretizer of 1 bit": {"categorical of 1 bit"},
    "uniform": DENSITIES,
    "uniform of 3 bits": DENSITIES,
    "variational": DENSITIES,
}
"""Likelihoods of the values that each preprocessor makes; every other pair is refused."""
ENCODER = encoders.Encoder(
    encoders.DenseEncoder(hidden_sizes=()), encoders.DiagonalGaussianPosterior(2)
)


def decoder(likelihood=LIKELIHOODS["bernoulli"], latent_ndims=1):
    network = decoders.DenseDecoder(hidden_sizes=()) if latent_ndims == 1 else None
    return decoders.Decoder(
        network or decoders.MapDecoder((2,)), likelihood, SHAPE, latent_ndims=latent_ndims
    )


MAKERS = {
    "VAE": lambda part, head: models.VAE(ENCODER, decoder(head), part),
    "HierarchicalVAE": lambda part, head: models.HierarchicalVAE(
        encoders.DenseEncoder(hidden_sizes=()), (2,), decoder(head), part
    ),
    "AutoEncoder": lambda part, head: models.AutoEncoder(
        encoders.DenseEncoder(hidden_sizes=()), 2, decoder(head), part
    ),
    "VQVAE": lambda part, head: models.VQVAE(
        encoders.MapEncoder((2,), features=2),
        quantizers.LookupFreeQuantizer(2),
        decoder(head, latent_ndims=3),
        part,
    ),
}


def test_the_table_names_every_preprocessor_and_likelihood():
    def public(package, suffixes):
        return {name for name in package.__all__ if name.endswith(suffixes)}

    named = {type(part).__name__ for part in (*PREPROCESSORS.values(), *LIKELIHOODS.values())}
    suffixes = ("Dequantizer", "Discretizer", "Binarizer", "Likelihood")
    assert named == public(models, suffixes) | public(decoders, suffixes)


@pytest.mark.parametrize("model", MAKERS)
def test_every_pair_is_right_or_refused(model):
    assert RIGHT.keys() == PREPROCESSORS.keys()
    for preprocessor, likelihood in itertools.product(PREPROCESSORS, LIKELIHOODS):
        parts = PREPROCESSORS[preprocessor], LIKELIHOODS[likelihood]
        if likelihood in RIGHT[preprocessor]:
            MAKERS[model](*parts)
            continue
        with pytest.raises(ValueError, match="observation and likelihood must") as caught:
            MAKERS[model](*parts)
        assert type(parts[0]).__name__ in str(caught.value)
        assert type(parts[1]).__name__ in str(caught.value)


NORMAL = bases.DiagonalGaussianBase((3,))
PLANAR = flows.PlanarFlow((3,))
GLOW = flows.Glow(SHAPE, num_levels=1)
DIAGONAL = encoders.DiagonalGaussianPosterior(2)


def vae(prior=None, **fields):
    return models.VAE(ENCODER, decoder(), models.Binarizer(), prior, **fields)


MISFITS = {
    "a base for a flow": (lambda: models.FlowModel(NORMAL), "DiagonalGaussianBase.* noise_shape"),
    "a stack for a flow": (
        lambda: models.FlowModel(flows.StackedFlow(None, num_steps=2)),
        "StackedFlow.* no event_shape",
    ),
    "a base for a dequantizer": (lambda: models.FlowModel(PLANAR, NORMAL), "dequantizer.*quantize"),
    "a dequantizer for a base": (
        lambda: models.FlowModel(GLOW, base=models.UniformDequantizer()),
        "base must be a base, got a UniformDequantizer.* needs_labels",
    ),
    "a flow for a base": (lambda: models.FlowModel(PLANAR, base=PLANAR), "base must be a base"),
    "a base of other events": (
        lambda: models.FlowModel(flows.PlanarFlow((2,)), base=NORMAL),
        r"\(2,\), got \(3,\)",
    ),
    "a base of images": (
        lambda: models.FlowModel(GLOW, base=bases.DiagonalGaussianBase(SHAPE)),
        r"\(16,\), got \(4, 4, 1\)",
    ),
    "a dequantizer of vectors": (
        lambda: models.FlowModel(PLANAR, models.UniformDequantizer()),
        r"flow.event_shape=\(3,\)",
    ),
    "a dequantizer of other images": (
        lambda: models.FlowModel(flows.Glow((8, 8, 1), num_levels=1), PREPROCESSORS["variational"]),
        r"\(8, 8, 1\).*\(4, 4, 1\)",
    ),
    "a dequantizer's flow without maps": (
        lambda: models.VariationalDequantizer(GLOW),
        "context_ndims=3, .* context_ndims=1",
    ),
    "a dequantizer's flow of vectors": (
        lambda: models.VariationalDequantizer(PLANAR),
        r"event_shape=\(3,\)",
    ),
    "a posterior's flow of other latents": (
        lambda: encoders.FlowPosterior(DIAGONAL, PLANAR),
        r"2 latents, got noise of shape \(3,\)",
    ),
    "a posterior's flow that is a head": (
        lambda: encoders.FlowPosterior(DIAGONAL, DIAGONAL),
        "flow must be a flow, got a DiagonalGaussianPosterior",
    ),
    "a prior of other latents": (lambda: vae(NORMAL), r"latents, \(2,\), .* of \(3,\)"),
    "a density as prior, of other latents": (
        lambda: vae(models.FlowModel(PLANAR)),
        r"latents, \(2,\), got a FlowModel of \(3,\)",
    ),
    "a flow as prior": (
        lambda: vae(flows.PlanarFlow((2,))),
        "prior_model must be a prior, got a PlanarFlow, which has no needs_labels",
    ),
    "a prior of other images": (
        lambda: vae(bases.VampPrior(num_components=2, image_shape=(2, 2, 1))),
        r"\(4, 4, 1\), got \(2, 2, 1\)",
    ),
    "a prior with labels": (
        lambda: vae(bases.LabelledGaussianBase((2,), num_classes=3)),
        "num_classes must be that of the prior's labels, 3, got None",
    ),
    "a prior of other classes": (
        lambda: vae(bases.LabelledGaussianBase((2,), num_classes=3), num_classes=4),
        "labels, 3, got 4",
    ),
    "an encoder without a head": (
        lambda: models.VAE(encoders.DenseEncoder((2,)), decoder(), models.Binarizer()),
        "encoder must be an Encoder, got a DenseEncoder, which has no posterior",
    ),
    "a network for a preprocessor": (
        lambda: models.VAE(ENCODER, decoder(), nn.MLP(2)),
        "observation must be a preprocessor, got a MLP, which has no quantize",
    ),
    "bits out of range": (lambda: decoders.CategoricalLikelihood(9), "bits must be in 1, .*got 9"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_parts_that_do_not_fit_are_named(name):
    make, message = MISFITS[name]
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
