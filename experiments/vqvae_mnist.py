"""Digits as maps of codes: a VQ-VAE, and a PixelSNAIL over its codes that samples digits.

One command trains both, reports a bound on bits/dim and the use of the codes, and plots samples,
reconstructions and the nearest training images. A run has four stages, each kept as soon as it is
done: train the auto-encoder, encode the data, train a prior on the codes of each level, and sample.
A stopped run goes on from the stage it was in; `--stage` runs one.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

import vaeflow as vf
from experiments import _cli, _evaluation, _figures, _scores
from experiments._evaluation import example_keys, measure
from experiments.vae_mnist import LIKELIHOODS
from vaeflow import data, estimators, losses, metrics, quantizers, training
from vaeflow.losses.vq_vae import code_evidence
from vaeflow.training.fingerprint import describe

STAGES = ("auto-encoder", "codes", "priors", "samples")
LATER = {
    **dict.fromkeys(("prior", "prior_train"), "prior_*/metrics.jsonl"),
    "classifier_train": "classifier/metrics.jsonl",
}
"""Options of later stages, and a file by which each has begun."""
RECONSTRUCTION = "validation_reconstruction"
CODE_NATS = "validation_negative_log_likelihood"
FINITE_SCALAR_LEVELS = {
    **{64: (8, 8), 256: (8, 6, 5), 512: (8, 8, 8)},
    **{1024: (8, 5, 5, 5), 4096: (7, 5, 5, 5, 5)},
}
"""Levels of each channel by the approximate number of codes.

Source: Mentzer et al. 2024, "Finite scalar quantization: VQ-VAE made simple", section 4.1: few
channels, of at least five levels each.
"""

PyTree = Any


# Configuration


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Which auto-encoder."""

    levels: int = 1
    """Number of maps of codes. The lowest is encoded after all `channels`; each above it has half
    the height and width, rounded up."""
    channels: tuple[int, ...] = (32, 64)
    """Channels of the convolutions down to the lowest map; each halves height and width."""
    blocks: int = 2
    """Residual blocks of each encoder and decoder."""
    hidden: int = 32
    """Channels within a residual block."""
    codes: int = 512
    """Codes of each level; about so many where they are finite-scalar."""
    latents: int = 64
    """Dimensions of a code; finite-scalar and lookup-free codes have their own."""
    quantizer: Literal["average", "gradient", "rotation", "finite-scalar", "lookup-free"] = (
        "average"
    )
    """How features become codes. average: the nearest, codes being moving averages of features.
    gradient: the same with a loss that moves codes. rotation: as average, with gradients by the
    rotation trick. The last two have no learned codes."""
    restart_below: float = 0.01
    """Share of even use below which a code that is a moving average restarts; 0 for never."""
    commitment: float = 0.25
    """Weight of the features' distance to their codes."""
    likelihood: Literal[
        "bernoulli", "continuous-bernoulli", "gaussian", "discretized-logistic", "categorical"
    ] = "discretized-logistic"
    """Of a value of a pixel. bernoulli: images are binarised again each time, but once for the
    codes that priors are trained on. The next two are densities of images with uniform noise; the
    last two probabilities of their 256 intensities."""

    def __post_init__(self) -> None:
        _cli.check_least(
            self, "model.", levels=1, blocks=1, hidden=1, codes=1, latents=1, channels=1
        )
        _cli.check(bool(self.channels), "model.channels must be at least one, got ()")
        below = self.restart_below
        _cli.check(0 <= below < 1, f"model.restart_below must be in [0, 1), got {below}")
        _cli.check(
            self.quantizer != "finite-scalar" or self.codes in FINITE_SCALAR_LEVELS,
            f"model.codes must be one of {sorted(FINITE_SCALAR_LEVELS)} for finite-scalar codes, "
            f"got {self.codes}",
        )
        _cli.check(
            self.quantizer != "lookup-free" or (self.codes > 1 and self.codes.bit_count() == 1),
            "model.codes must be a power of 2, at least 2, for lookup-free codes, got "
            f"{self.codes}",
        )


@dataclasses.dataclass(frozen=True)
class PriorConfig:
    """Which priors over codes: PixelSNAIL for the top, gated PixelCNNs given the level above."""

    channels: int = 128
    """Channels of each network, a multiple of 8."""
    blocks: int = 2
    """Blocks of the top's network, each of residual blocks and attention."""
    residuals: int = 3
    """Residual blocks before each attention."""
    lower_blocks: int = 8
    """Layers of the networks of the levels below."""
    dropout: float = 0.1
    """Share of channels that are dropped in training."""
    classes: int | None = None
    """Number of classes of the data where the priors are given labels."""

    def __post_init__(self) -> None:
        _cli.check_least(self, "prior.", channels=1, blocks=1, residuals=1, lower_blocks=1)
        heads = vf.nn.PixelSNAIL.num_heads
        _cli.check(
            self.channels % heads == 0,
            f"prior.channels must be a multiple of {heads}, got {self.channels}",
        )
        _cli.check(0 <= self.dropout < 1, f"prior.dropout must be in [0, 1), got {self.dropout}")


@dataclasses.dataclass(frozen=True)
class Config:
    """A run."""

    data: data.DataConfig
    model: ModelConfig
    prior: PriorConfig
    train: training.TrainConfig
    """Of the auto-encoder."""
    prior_train: training.TrainConfig
    """Of the prior of each level."""
    classifier_train: training.TrainConfig = _scores.TRAIN
    """Of the classifier that samples are scored by, where the data have labels."""


# Presets


def preset(
    source: str, steps: int, prior_steps: int, evaluate_every: int, **described: Any
) -> _cli.Preset:
    """Makes a preset from its data, its numbers of steps, and the other fields."""
    train = training.TrainConfig(
        steps=steps,
        batch_size=128,
        learning_rate=1e-3,
        schedule="cosine",
        ema_decay=0.0,  # codes are averages of the features of the parameters themselves
        scan_steps=20,
        log_every=20,
        evaluate_every=evaluate_every,
        checkpoint_every=500,
    )
    prior_train = dataclasses.replace(
        train, steps=prior_steps, batch_size=64, warmup_steps=100, clip_norm=1.0, ema_decay=0.999
    )
    config = Config(data.DataConfig(source), ModelConfig(), PriorConfig(), train, prior_train)
    return _cli.Preset(config, **described)


MNIST_RUN = "our run, 45 minutes, seed 0, with a prior that began at equal codes"
PRESETS = {
    "digits": preset(
        *("embedded:digits", 1200, 600, 200),
        yields="5,000 digits, which are embedded.",
        cost="7 minutes on 2 CPU cores",
        expected={"bits_per_dim": _cli.Expected(1.58, "our run, fold 0, seed 0")},
    ),
    "mnist": preset(
        *("npz:PATH", 2500, 4000, 1000),
        yields="All of MNIST: --data.source npz:PATH.",
        cost="an hour on 2 CPU cores",
        expected={"bits_per_dim": _cli.Expected(1.415, MNIST_RUN, _cli.MNIST)},
    ),
}


# Model


def map_shapes(config: ModelConfig, shape: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Returns height and width of the map of each level, from the top."""
    factors = [2 ** (len(config.channels) + level) for level in range(config.levels)]
    return [(-(-shape[0] // factor), -(-shape[1] // factor)) for factor in reversed(factors)]


def build_quantizer(config: ModelConfig) -> tuple[nn.Module, int]:
    """Builds the quantizer of a level; returns it and the number of its channels."""
    if config.quantizer == "finite-scalar":
        levels = FINITE_SCALAR_LEVELS[config.codes]
        return quantizers.FiniteScalarQuantizer(levels), len(levels)
    if config.quantizer == "lookup-free":
        bits = config.codes.bit_length() - 1
        return quantizers.LookupFreeQuantizer(bits), bits
    rotation, gradient = config.quantizer == "rotation", config.quantizer == "gradient"
    average = quantizers.MovingAverage(restart_below=config.restart_below)
    vector = quantizers.VectorQuantizer(
        config.codes,
        average=None if gradient else average,
        gradient=quantizers.rotation_trick if rotation else quantizers.straight_through,
    )
    return vector, config.latents


def build_auto_encoder(
    config: ModelConfig, shape: tuple[int, int, int]
) -> vf.models.VQVAE | vf.models.VQVAE2:
    """Builds an auto-encoder of images of a shape."""
    likelihood, preprocessing = LIKELIHOODS[config.likelihood]
    latents = build_quantizer(config)[1]
    sizes = {"num_blocks": config.blocks, "hidden_features": config.hidden}
    wide, above = config.channels[-1], config.levels - 1
    network = vf.decoders.MapDecoder(config.channels[::-1], **sizes)
    decoder = vf.decoders.Decoder(network, likelihood(), shape, latent_ndims=3)
    first = vf.encoders.MapEncoder(config.channels, features=wide if above else latents, **sizes)
    if not above:
        return vf.models.VQVAE(first, build_quantizer(config)[0], decoder, preprocessing())
    features = [wide] * (above - 1) + [latents]
    return vf.models.VQVAE2(
        (first, *(vf.encoders.MapEncoder((wide,), features=size, **sizes) for size in features)),
        tuple(vf.decoders.MapDecoder((wide,), **sizes) for _ in range(above)),
        tuple(build_quantizer(config)[0] for _ in range(config.levels)),
        decoder,
        preprocessing(),
        latents,
    )


def build(config: Config, shape: tuple[int, int, int]) -> vf.models.CodeModel:
    """Builds an auto-encoder of images of a shape, and the prior of each level."""
    prior, shapes = config.prior, map_shapes(config.model, shape)
    num_codes = build_quantizer(config.model)[0].num_codes
    sizes = {"num_codes": num_codes, "channels": prior.channels}
    of_network = {"dropout": prior.dropout, **sizes}
    depth = {"num_blocks": prior.blocks, "num_residuals": prior.residuals}
    top = vf.nn.PixelSNAIL(shapes[0], **depth, **of_network)
    priors = [vf.models.CodePrior(top, num_classes=prior.classes)]
    for size in shapes[1:]:
        network = vf.nn.GatedPixelCNN(size, num_blocks=prior.lower_blocks, **of_network)
        above = vf.nn.UpsampledConditioner(size, **sizes)
        priors.append(vf.models.CodePrior(network, num_classes=prior.classes, above=above))
    return vf.models.CodeModel(build_auto_encoder(config.model, shape), tuple(priors))


# Run


def run(config: Config, directory: training.RunDirectory, stage: str) -> _cli.Result | None:
    """Runs all stages, or one of them."""
    dataset = data.open_dataset(config.data)
    print(dataset)
    check_options(config, dataset)
    batches = training.Batches(
        dataset.train, config.train.batch_size, config.train.seed, config.data.flip
    )
    names = _evaluation.level_names(config.model.levels)
    model, path = build(config, dataset.shape), directory.path
    last = STAGES[-1] if stage == _cli.ALL else stage

    def is_done(file: epath.Path, name: str) -> bool:
        """Whether a stage has left its file; one that hasn't must be among those to run."""
        done = file.exists()
        _cli.check(
            done or stage in (_cli.ALL, name), f"stage {name} isn't done yet: it comes first"
        )
        return done

    file = path / "auto_encoder.safetensors"
    if is_done(file, "auto-encoder"):
        directory.check_fingerprint({"data": describe(batches)})
        auto_encoder = _cli.read_part(file)
    else:
        fitted = fit_auto_encoder(config, model.auto_encoder, dataset, batches, directory)
        auto_encoder = _cli.write_part(file, directory, fitted)
    if last == "auto-encoder":
        return None

    file = path / "codes.npz"
    if is_done(file, "codes"):
        codes = _evaluation.load_codes(file, names)
    else:
        codes = _evaluation.encode_splits(
            model.auto_encoder, auto_encoder.variables, dataset, names, config.data.flip
        )
        if training.is_first():
            codes.save(file)
    if last == "codes":
        return None

    priors = []
    for level, name in enumerate(names):
        folder = path / f"prior_{name}"
        file = folder / "prior.safetensors"
        if is_done(file, "priors"):
            priors.append(_cli.read_part(file))
            continue
        folder.mkdir(parents=True, exist_ok=True)
        _cli.announce(f"prior of {name}")
        fitted = fit_prior(config, model, level, codes, dataclasses.replace(directory, path=folder))
        priors.append(_cli.write_part(file, directory, fitted))
    if last == "priors":
        return None
    return measure_and_plot(config, model, auto_encoder, priors, codes, dataset, directory)


def check_options(config: Config, dataset: data.Dataset) -> None:
    """Checks the options of all stages against the data, before hours of training."""
    examples, labelled = len(dataset.train), dataset.num_classes is not None
    _cli.check_classes("prior.classes", config.prior.classes, dataset.num_classes)
    _cli.check_batches(config.train, "train", examples)
    _cli.check_batches(config.prior_train, "prior_train", examples * (1 + config.data.flip))
    if labelled:
        _cli.check_batches(config.classifier_train, "classifier_train", examples)
    few = min(examples, len(dataset.test))
    _cli.check(few > 1 or not labelled, f"data.source must have 2 test images, got {few}")


def fit_auto_encoder(
    config: Config,
    model: vf.models.CodeAutoEncoder,
    dataset: data.Dataset,
    batches: training.Batches,
    directory: training.RunDirectory,
) -> training.TrainResult:
    """Trains the auto-encoder."""
    train, first = config.train, data.stack(dataset.train, 500)["image"]

    @jax.jit
    def log_likelihood(variables: PyTree, batch: PyTree) -> jax.Array:
        return code_evidence(model, variables, batch, example_keys(batch)).log_likelihood

    def evaluate(step: int, variables: PyTree) -> dict[str, float]:
        return {RECONSTRUCTION: -np.mean(measure(log_likelihood, variables, dataset.validation))}

    def figures(step: int, variables: PyTree) -> None:
        figure = _figures.reconstructions(model, variables, dataset.validation)
        _figures.save(directory, f"reconstructions_step_{step:07d}", figure)

    return training.train(
        model,
        functools.partial(losses.vq_vae, commitment=config.model.commitment),
        batches,
        train,
        directory,
        initialize=lambda: jax.jit(model.init)(jax.random.key(train.seed), first),
        figures=figures,
        evaluate=evaluate,
        best=RECONSTRUCTION,
    )


def fit_prior(
    config: Config,
    model: vf.models.CodeModel,
    level: int,
    codes: _evaluation.Codes,
    directory: training.RunDirectory,
) -> training.TrainResult:
    """Trains the prior of a level, given labels and the level above where it takes them."""
    prior, name, train = model.priors[level], codes.names[level], config.prior_train
    keys = [] if prior.num_classes is None else ["label"]
    keys += [] if prior.above is None else [codes.names[level - 1]]
    context_key = tuple(keys) if len(keys) > 1 else next(iter(keys), None)
    source, validation = codes.source("train"), codes.source("validation")
    first = data.stack(source, 5000)
    key, context = jax.random.key(train.seed), estimators.context_of(first, context_key)

    @jax.jit
    def log_prob(variables: PyTree, batch: PyTree) -> jax.Array:
        context = estimators.context_of(batch, context_key)
        return prior.apply(variables, batch[name], None, context=context, method="log_prob")

    def evaluate(step: int, variables: PyTree) -> dict[str, float]:
        return {CODE_NATS: -np.mean(measure(log_prob, variables, validation))}

    return training.train(
        prior,
        functools.partial(losses.negative_log_likelihood, data=name, context_key=context_key),
        training.Batches(source, train.batch_size, train.seed),
        train,
        directory,
        initialize=lambda: jax.jit(prior.init)(key, first[name], context=context),
        evaluate=evaluate,
        best=CODE_NATS,
    )


def measure_and_plot(
    config: Config,
    model: vf.models.CodeModel,
    auto_encoder: _cli.Part,
    priors: list[_cli.Part],
    codes: _evaluation.Codes,
    dataset: data.Dataset,
    directory: training.RunDirectory,
) -> _cli.Result:
    """Measures the model of all parts, scores its samples if there are labels, and plots."""
    parts = {f"priors_{level}": prior.variables for level, prior in enumerate(priors)}
    variables = vf.models.merge_submodels({"auto_encoder": auto_encoder.variables, **parts})
    directory.write_model(variables, dataset.shape)

    @jax.jit
    def nats(variables: PyTree, batch: PyTree) -> jax.Array:
        bound = losses.code_bound(model, variables, batch, example_keys(batch))
        return -jnp.stack([bound.log_likelihood, *bound.log_prior], axis=-1)

    reconstruction, *code_nats = measure(nats, variables, dataset.test, "bound").mean(axis=0)
    dimensions = int(np.prod(dataset.shape))
    counts = codes.counts(model.priors[0].network.num_codes)
    results = {
        "bits_per_dim": metrics.bits_per_dim(reconstruction + sum(code_nats), dimensions),
        "reconstruction_per_dim": metrics.bits_per_dim(reconstruction, dimensions),
        "reconstruction": reconstruction,
    }
    for name, of_level, prior in zip(codes.names, code_nats, priors, strict=True):
        results[f"code_nats/{name}"] = of_level
        results[f"prior_step/{name}"] = prior.step
        results[f"live_codes/{name}"] = metrics.live_codes(counts[name])
        results[f"code_perplexity/{name}"] = metrics.code_perplexity(counts[name])
    if dataset.num_classes is not None:
        train = config.classifier_train
        scorer = _scores.open_scorer(dataset, config.data, directory, train=train)
        draw = functools.partial(_figures.code_samples, model, variables)
        samples = _scores.draw_samples(draw, jax.random.key(5), scorer.count)
        results |= scorer.report({"samples": samples})
    if training.is_first():
        names, flip = codes.names, config.data.flip
        plots = _figures.code_figures(model, variables, dataset, names, counts, flip)
        curves = _figures.code_curves(directory, names, RECONSTRUCTION, CODE_NATS)
        _figures.save_all(directory, itertools.chain(plots, curves))
    remark = "bits_per_dim is a bound, by likelihood and prior of one code a latent"
    return _cli.Result(auto_encoder.step, results, remark)


if __name__ == "__main__":
    _cli.main("vqvae_mnist", PRESETS, run, stages=STAGES, later=LATER)
