"""Variational auto-encoders of digits: posteriors, priors and bounds under one protocol.

Trains on digits binarised again at every step. Reports the log-likelihood of the test digits by
importance sampling, how many latents are used and, for a mixture prior, how well its clusters agree
with the labels. Plots samples, reconstructions, interpolations, traversals and the latents of the
data. The preset `ae` trains a plain auto-encoder and the same networks as a VAE, and compares them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np

import vaeflow as vf
from experiments import _cli, _evaluation, _figures
from experiments._evaluation import VALIDATION, measure
from vaeflow import data, losses, metrics, training

NATS = "negative_log_likelihood"

PyTree = Any
Model = vf.models.VAE | vf.models.HierarchicalVAE | vf.models.AutoEncoder


# Configuration


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Which encoder, posterior, prior and decoder."""

    network: Literal["dense", "convolutional", "residual", "gated"] = "dense"
    """Networks of encoder and decoder. dense: two layers of 200 units with tanh, as in the
    published code of importance-weighted auto-encoders. gated: as with Sylvester flows."""
    latents: int = 50
    """Number of latents."""
    posterior: Literal["diagonal", "full", "planar", "sylvester", "iaf", "none"] = "diagonal"
    """A Gaussian, diagonal or full; or a diagonal one through a flow whose parameters follow the
    image. none: latents without a distribution, an auto-encoder."""
    posterior_steps: int = 16
    """Steps of the posterior's flow."""
    prior: Literal["standard", "mixture", "vamp", "flow", "autoregressive"] = "standard"
    """A standard normal; a mixture of Gaussians; a mixture of the posteriors of learned
    pseudo-inputs; a flow of affine couplings; or each latent a Gaussian given those before it."""
    components: int = 500
    """Components of the prior where it is a mixture, of either kind."""
    likelihood: Literal[
        "bernoulli", "continuous-bernoulli", "gaussian", "discretized-logistic", "categorical"
    ] = "bernoulli"
    """Of a value of a pixel. bernoulli: images are binarised again each time. The next two are
    densities of images with uniform noise; the last two probabilities of their 256 intensities."""
    levels: tuple[int, ...] = ()
    """Numbers of latents of the levels of a hierarchy, from the one next to the image up, instead
    of `latents`; empty for a model of one level."""
    classes: int | None = None
    """Number of classes of the data where encoder and decoder are given labels."""

    def __post_init__(self) -> None:
        _cli.check_least(self, "model.", latents=1, posterior_steps=1, components=1, levels=1)
        parts = (self.posterior, self.prior)
        _cli.check(
            self.posterior != "none" or self.prior == "standard",
            f"model.prior is for models with a posterior, got {self.prior} with posterior none",
        )
        _cli.check(
            not self.levels or parts == ("diagonal", "standard"),
            "model.levels need a diagonal posterior and a standard prior, got "
            + " and ".join(parts),
        )
        _cli.check(
            self.classes is None or self.prior != "vamp",
            f"model.classes and a vamp prior exclude each other, got {self.classes}",
        )


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """The objective."""

    bound: Literal["elbo", "importance-weighted", "sticking-the-landing", "doubly-reparameterized"]
    """The negative ELBO; the importance-weighted bound, with its plain gradient; or a bound with a
    gradient of less variance."""
    samples: int = 1
    """Samples k of each image; the ELBO takes one."""
    beta: float = 1.0
    """Weight of the KL, for the ELBO alone."""
    warmup: float = 0.0
    """Share of the training, or of each cycle of it, over which that weight rises from 0."""
    cycles: int = 1
    """Number of such rises, in equal parts of the training; 1 is plain warm-up."""
    free_bits: float = 0.0
    """Nats of the KL of each latent that cost nothing, averaged over a batch, for the ELBO alone;
    of all latents at once where posterior or prior isn't normal."""

    def __post_init__(self) -> None:
        _cli.check(
            self.samples >= 1 and (self.bound != "elbo" or self.samples == 1),
            f"objective.samples must be at least 1, and 1 for the ELBO, got {self.samples}",
        )
        _cli.check(0 <= self.warmup <= 1, f"objective.warmup must be in [0, 1], got {self.warmup}")
        _cli.check(
            self.cycles >= 1 and (self.cycles == 1 or self.warmup > 0),
            "objective.cycles must be at least 1, and 1 without a warmup, got "
            f"{self.cycles} with warmup {self.warmup}",
        )
        weights = (self.beta, self.warmup, self.free_bits)
        _cli.check(
            self.bound == "elbo" or weights == (1.0, 0.0, 0.0),
            "objective.beta, objective.warmup and objective.free_bits are for the ELBO, got "
            "{}, {} and {} with {}".format(*weights, self.bound),
        )
        _cli.check_least(self, "objective.", beta=0, free_bits=0)


@dataclasses.dataclass(frozen=True)
class Config:
    """A run."""

    data: data.DataConfig
    model: ModelConfig
    objective: ObjectiveConfig
    train: training.TrainConfig
    importance_samples: int = 5000
    """Samples of each test image behind the log-likelihood, in hundreds."""

    def __post_init__(self) -> None:
        _cli.check(
            self.importance_samples >= 100 and self.importance_samples % 100 == 0,
            f"importance_samples must be a multiple of 100, got {self.importance_samples}",
        )


# Presets


def preset(
    yields: str,
    *,
    bound: str = "elbo",
    samples: int = 1,
    beta: float = 1.0,
    warmup: float = 0.0,
    cost: str = "5 minutes on 2 CPU cores",
    published: float | None = None,
    **model: Any,
) -> _cli.Preset:
    """Makes a preset from its model and its bound; `published` is its figure on all of MNIST."""
    source = "Burda et al. 2016, table 1: all of MNIST, 3,280 epochs"
    expected = {} if published is None else {NATS: _cli.Expected(published, source, _cli.MNIST)}
    train = training.TrainConfig(
        steps=20_000,
        batch_size=100,
        learning_rate=2e-3,
        schedule="cosine",
        clip_norm=100.0,  # twice the usual; without it, posteriors of planar maps once diverged
        ema_decay=0.999,
        scan_steps=200,
        log_every=100,
        evaluate_every=2000,
        checkpoint_every=2000,
    )
    return _cli.Preset(
        Config(
            data.DataConfig("embedded:digits"),
            ModelConfig(**model),
            ObjectiveConfig(bound, samples, beta, warmup),
            train,
        ),
        yields=f"{yields}. 5,000 digits are embedded; --data.source npz:PATH takes all of MNIST.",
        cost=cost,
        expected=expected,
    )


PRESETS = {
    "vae": preset("A variational auto-encoder with a diagonal posterior", published=86.76),
    "beta": preset("The same with four times the KL", beta=4.0),
    "iwae": preset(
        "The importance-weighted bound of 50 samples",
        bound="importance-weighted",
        samples=50,
        cost="an hour on 2 CPU cores",
        published=84.78,
    ),
    "dreg": preset(
        "The same with the doubly reparameterised gradient",
        bound="doubly-reparameterized",
        samples=50,
        cost="an hour on 2 CPU cores",
    ),
    "planar": preset("A posterior of 16 planar maps", posterior="planar"),
    "sylvester": preset(
        "A posterior of 4 Sylvester maps", posterior="sylvester", posterior_steps=4
    ),
    "iaf": preset(
        "A posterior of 4 inverse autoregressive maps", posterior="iaf", posterior_steps=4
    ),
    "vamp": preset("A VampPrior, the mixture of the posteriors of 500 pseudo-inputs", prior="vamp"),
    "mixture": preset(  # without warm-up all latents begin, and stay, in one cluster
        "A prior that is a mixture of Gaussians", prior="mixture", components=10, warmup=0.5
    ),
    "flow-prior": preset("A prior that is a flow", prior="flow"),
    "ae": preset(
        "An auto-encoder, then the same networks as a variational one: samples of both",
        posterior="none",
        latents=20,
        cost="8 minutes on 2 CPU cores",
    ),
    "manifold": preset("Two latents, with a plot of their manifold", latents=2),
    "autoregressive-prior": preset(
        "A prior in which each latent is a Gaussian given those before it", prior="autoregressive"
    ),
    "hierarchical": preset("A ladder of two levels of latents", levels=(50, 20)),
    "conditional": preset("Encoder and decoder that are given the labels", classes=10),
}


# Model


NETWORKS = {
    "dense": (vf.encoders.DenseEncoder, vf.decoders.DenseDecoder),
    "convolutional": (vf.encoders.ConvolutionalEncoder, vf.decoders.ConvolutionalDecoder),
    "residual": (vf.encoders.ResidualEncoder, vf.decoders.ResidualDecoder),
    "gated": (vf.encoders.GatedEncoder, vf.decoders.GatedDecoder),
}

LIKELIHOODS = {
    "bernoulli": (vf.decoders.BernoulliLikelihood, vf.models.Binarizer),
    "continuous-bernoulli": (
        vf.decoders.ContinuousBernoulliLikelihood,
        vf.models.UniformDequantizer,
    ),
    "gaussian": (vf.decoders.GaussianLikelihood, vf.models.UniformDequantizer),
    "discretized-logistic": (
        vf.decoders.DiscretizedLogisticMixtureLikelihood,
        vf.models.Discretizer,
    ),
    "categorical": (vf.decoders.CategoricalLikelihood, vf.models.Discretizer),
}
"""Likelihoods by name, each with the preprocessing of images that it is defined on."""


def build(config: Config, shape: tuple[int, int, int]) -> Model:
    """Builds the model for images of a shape."""
    model = config.model
    encoder, decoder = NETWORKS[model.network]
    likelihood, preprocessing = LIKELIHOODS[model.likelihood]
    decoder = vf.decoders.Decoder(decoder(), likelihood(), shape)
    if model.posterior == "none":
        return vf.models.AutoEncoder(encoder(), model.latents, decoder, preprocessing())
    if model.levels:
        return vf.models.HierarchicalVAE(
            encoder(), model.levels, decoder, preprocessing(), num_classes=model.classes
        )
    return vf.models.VAE(
        vf.encoders.Encoder(encoder(), build_posterior(model)),
        decoder,
        preprocessing(),
        build_prior(model, shape),
        model.classes,
    )


# As in all runs so far: with tighter bounds, those with larger scales would have other densities.
LOG_SCALE = vf.bijectors.BoundedLogScale(-math.inf, math.inf)
AFFINE = vf.bijectors.AffineTransformer(LOG_SCALE)


def build_posterior(config: ModelConfig) -> nn.Module:
    """Builds the head of q(z | x)."""
    if config.posterior == "full":
        return vf.encoders.FullGaussianPosterior(config.latents)
    diagonal = vf.encoders.DiagonalGaussianPosterior(config.latents)
    if config.posterior == "diagonal":
        return diagonal
    shape, steps, flows = (config.latents,), config.posterior_steps, vf.flows
    if config.posterior == "planar":
        flow = flows.PlanarFlow(shape, num_steps=steps)
    elif config.posterior == "sylvester":
        flow = flows.SylvesterFlow(shape, num_steps=steps, basis=flows.OrthogonalBasis(16))
    else:
        flow = flows.InverseAutoregressiveFlow(
            shape, num_steps=steps, transformer=AFFINE, hidden_sizes=(320, 320)
        )
    return vf.encoders.FlowPosterior(diagonal, flow)


def build_prior(config: ModelConfig, shape: tuple[int, int, int]) -> nn.Module | None:
    """Builds p(z); None is a standard normal."""
    latents, components = (config.latents,), config.components
    if config.prior == "mixture":
        return vf.bases.GaussianMixtureBase(latents, num_components=components)
    if config.prior == "vamp":
        return vf.bases.VampPrior(num_components=components, image_shape=shape)
    if config.prior == "flow":
        return vf.models.FlowModel(
            vf.flows.RealNVP(latents, num_steps=6, hidden_features=128, log_scale=LOG_SCALE)
        )
    if config.prior == "autoregressive":  # one step: a second one would go through them backwards
        return vf.models.FlowModel(
            vf.flows.MaskedAutoregressiveFlow(
                latents, num_steps=1, transformer=AFFINE, hidden_sizes=(256, 256)
            )
        )
    return None


def make_loss(
    objective: ObjectiveConfig, steps: int, context_key: str | None = None
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Returns the loss of a run of so many steps, and the schedules of its weights."""
    if objective.bound == "elbo":
        free_bits = objective.free_bits or None
        loss = functools.partial(losses.elbo, free_bits=free_bits, context_key=context_key)
        beta = losses.linear_schedule(0, end=objective.beta)
        if objective.warmup:
            beta = losses.cyclic_schedule(
                steps, cycles=objective.cycles, rising=objective.warmup, end=objective.beta
            )
        return loss, {"beta": beta}
    loss = {
        "importance-weighted": losses.importance_weighted,
        "sticking-the-landing": losses.sticking_the_landing,
        "doubly-reparameterized": losses.doubly_reparameterized,
    }[objective.bound]
    return functools.partial(loss, num_samples=objective.samples, context_key=context_key), {}


# Run


def run(config: Config, directory: training.RunDirectory) -> _cli.Result:
    """Trains, measures and plots."""
    if config.model.posterior == "none":
        return compare(config, directory)
    dataset = data.open_dataset(config.data)
    print(dataset)
    _cli.check_classes("model.classes", config.model.classes, dataset.num_classes)
    model, train = build(config, dataset.shape), config.train
    context_key = _evaluation.context_key_of(model)
    loss, weights = make_loss(config.objective, train.steps, context_key)
    first = data.stack(dataset.train, max(500, config.model.components))
    labels = None if context_key is None else first[context_key]

    def evaluate(step: int, variables: PyTree) -> dict[str, float]:
        return {VALIDATION: _evaluation.mean_elbo(model, variables, dataset.validation)}

    def figures(step: int, variables: PyTree) -> None:
        samples = _figures.samples(model, variables, 2)
        _figures.save(directory, f"samples_step_{step:07d}", samples)

    fitted = training.train(
        model,
        loss,
        training.Batches(dataset.train, train.batch_size, train.seed, config.data.flip),
        train,
        directory,
        initialize=lambda: jax.jit(model.init)(
            jax.random.key(train.seed), first["image"], context=labels
        ),
        weights=weights,
        figures=figures,
        evaluate=evaluate,
        best=VALIDATION if train.patience else None,
    )
    variables = fitted.variables
    directory.write_model(variables, dataset.shape)

    log_likelihood = _evaluation.log_likelihood(model, config.importance_samples)
    nats = -np.mean(measure(log_likelihood, variables, dataset.test, "log-likelihood"))
    elbo_terms = functools.partial(_evaluation.elbo_terms, model)
    terms = measure(elbo_terms, variables, dataset.test, "ELBO")
    mean = functools.partial(_evaluation.posterior_mean, model)
    means = measure(mean, variables, dataset.test, "posteriors")
    counts, remark = _evaluation.collapse(means)
    results = {
        NATS: nats,
        **_evaluation.negative_elbo(terms),
        "bits_per_dim": metrics.bits_per_dim(nats, np.prod(dataset.shape)),
        **counts,
        **fitted.metrics,
    }
    if config.model.levels:
        for name, active in model.split(metrics.active_units(means)).items():
            results[f"kl/{name}"] = np.mean(terms[f"kl/{name}"])
            results[f"active_units/{name}"] = int(active.sum())
    if config.model.prior == "mixture" and dataset.num_classes:
        components = functools.partial(_evaluation.prior_components, model)
        clusters = measure(components, variables, dataset.test, "clusters")[:, 0].astype(int)
        results["cluster_accuracy"] = metrics.cluster_accuracy(
            clusters, data.stack(dataset.test)["label"]
        )
    if training.is_first():
        plots = _figures.latent_figures(model, variables, dataset, directory)
        _figures.save_all(directory, plots)
        _figures.save(directory, "training_curve", _figures.elbo_curve(directory))
    return _cli.Result(fitted.step, results, remark)


def compare(config: Config, directory: training.RunDirectory) -> _cli.Result:
    """Trains an auto-encoder, then the same networks as a VAE in the folder `vae`; compares them.

    Both are trained for as many steps.
    """
    dataset = data.open_dataset(config.data)
    print(dataset)
    train = dataclasses.replace(config.train, patience=0)
    key = jax.random.key(train.seed)
    first = data.stack(dataset.train, 500)["image"]

    def fit(model, loss, weights, initialize, directory: training.RunDirectory) -> PyTree:
        variables = training.train(
            model,
            loss,
            training.Batches(dataset.train, train.batch_size, train.seed, config.data.flip),
            train,
            directory,
            initialize=functools.partial(jax.jit(initialize), first),
            weights=weights,
        ).variables
        directory.write_model(variables, dataset.shape)
        return variables

    model = build(config, dataset.shape)

    def initialize(images: jax.Array) -> PyTree:
        return model.init(key, model.apply({}, images, key, method="observe").values)

    sizes = dataclasses.replace(config.model, posterior="diagonal")
    of_vae = dataclasses.replace(config, model=sizes)
    folder = directory.path / "vae"
    folder.mkdir(parents=True, exist_ok=True)
    inner = dataclasses.replace(directory, path=folder, config=dataclasses.asdict(of_vae))
    vae = build(of_vae, dataset.shape)
    loss, weights = make_loss(config.objective, train.steps)

    variables = fit(model, losses.reconstruction, {}, initialize, directory)
    vae_variables = fit(vae, loss, weights, lambda images: vae.init(key, images), inner)

    loss = functools.partial(losses.reconstruction, model)
    nats = _evaluation.mean_loss(loss, variables, dataset.test, "reconstructions")
    elbo_terms = functools.partial(_evaluation.elbo_terms, vae)
    terms = _evaluation.negative_elbo(measure(elbo_terms, vae_variables, dataset.test, "ELBO"))
    if training.is_first():
        plots = _figures.compared_figures(model, variables, vae, vae_variables, dataset, directory)
        _figures.save_all(directory, plots)
    results = {
        "reconstruction": nats,
        "reconstruction_per_dim": metrics.bits_per_dim(nats, np.prod(dataset.shape)),
        **{f"vae_{name}": terms[name] for name in ("reconstruction", "kl", "negative_elbo")},
    }
    return _cli.Result(train.steps, results)


if __name__ == "__main__":
    _cli.main("vae_mnist", PRESETS, run)
